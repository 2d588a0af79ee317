//! Pages of other sites.
//!
//! A server without keys answers everyone on its machine, and a browser there sends what any page wants
//! sent, to 127.0.0.1 as well: the page could not read the answer, and would have promoted a model all the
//! same. With keys there is nothing to do: no page can make a browser show one.

use axum::http::{HeaderMap, HeaderValue, header};

/// The site whose page makes a request, where it is not this server's own page.
pub fn other_site(headers: &HeaderMap) -> Option<String> {
    // Only browsers send it: with whatever a page asks of another site that could change something.
    let origin = headers.get(header::ORIGIN)?;
    // Behind a proxy the server's own pages have another host than it knows; the browser knows better.
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if matches!(site, Some(b"same-origin" | b"none")) {
        return None;
    }
    let origin = String::from_utf8_lossy(origin.as_bytes());
    let own = headers.get(header::HOST).map(HeaderValue::as_bytes);
    match origin.split_once("://") {
        Some((_, host)) if own.is_some_and(|own| own.eq_ignore_ascii_case(host.as_bytes())) => None,
        _ => Some(origin.into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_site_is_told_from_everybody_else() {
        let site = |origin: Option<&'static str>, fetch_site: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("localhost:8080"));
            for (name, value) in [("origin", origin), ("sec-fetch-site", fetch_site)] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            other_site(&headers)
        };
        for (origin, fetch_site) in [
            // No browser; its own pages, also behind a proxy; an address that somebody has typed
            (None, None),
            (Some("http://localhost:8080"), None),
            (Some("http://LOCALHOST:8080"), Some("same-origin")),
            (Some("https://predict.example"), Some("same-origin")),
            (None, Some("none")),
        ] {
            assert_eq!(site(origin, fetch_site), None, "{origin:?}");
        }
        for (origin, fetch_site) in [
            ("http://localhost:3000", None),
            ("https://evil.example", Some("cross-site")),
            ("http://localhost:8080.evil.example", Some("cross-site")),
            ("https://other.predict.example", Some("same-site")),
            ("null", None),
            ("localhost:8080", None),
        ] {
            assert_eq!(site(Some(origin), fetch_site).as_deref(), Some(origin));
        }
    }
}
