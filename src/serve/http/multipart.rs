//! Reading `multipart/form-data` as it comes, without holding more than a piece of it.
//!
//! The crates that do this hold what has arrived and is not yet taken, however much that is; here whoever
//! brings bytes decides how many there are at a time. Strict: what a browser, curl, or an HTTP library
//! sends is understood, anything else is refused with the reason.

/// The longest boundary there may be, in bytes (RFC 2046).
const MAX_BOUNDARY: usize = 70;

/// The most bytes of the headers of one part.
const MAX_HEADERS: usize = 8 * 1024;

/// What has been read.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A part begins: its name, and that of the file it was read from where one is told.
    Part {
        name: String,
        file_name: Option<String>,
    },
    /// More bytes of it.
    Data(Vec<u8>),
    /// The body is over; what comes behind it means nothing.
    End,
}

/// Takes the bytes of a body in any pieces, and gives what they mean.
pub struct Parser {
    /// A line end, two hyphens and the boundary: what ends every part.
    delimiter: Vec<u8>,
    /// What has come and means nothing yet.
    buffer: Vec<u8>,
    place: Place,
}

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// What is before the first part.
    Preamble,
    /// Right behind a delimiter.
    Delimiter,
    Headers,
    Data,
    End,
}

impl Parser {
    /// For a body of this content type.
    ///
    /// # Errors
    /// When it is not multipart/form-data, or has no boundary that could be one.
    pub fn new(content_type: Option<&str>) -> Result<Parser, String> {
        let found = content_type.unwrap_or_default();
        let (kind, parameters) = found.split_once(';').unwrap_or((found, ""));
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return Err(format!(
                "header Content-Type: expected multipart/form-data, found {:?}",
                crate::features::value::shorten(found, 64)
            ));
        }
        let boundary = parameter(parameters, "boundary").unwrap_or_default();
        let is_possible = (1..=MAX_BOUNDARY).contains(&boundary.len())
            && boundary
                .bytes()
                .all(|byte| byte == b' ' || byte.is_ascii_graphic())
            && !boundary.ends_with(' ');
        if !is_possible {
            return Err(format!(
                "header Content-Type: expected a boundary of 1 to {MAX_BOUNDARY} characters"
            ));
        }
        Ok(Parser {
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            // As if a line had ended before the body: the first delimiter is like the others then.
            buffer: b"\r\n".to_vec(),
            place: Place::Preamble,
        })
    }

    /// Takes more of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.place != Place::End {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next thing that the bytes so far mean; `None` until more come.
    ///
    /// # Errors
    /// What is not as it has to be.
    pub fn read(&mut self) -> Result<Option<Event>, String> {
        loop {
            match self.place {
                Place::Preamble => match find(&self.buffer, &self.delimiter) {
                    Some(at) => {
                        self.take(at + self.delimiter.len());
                        self.place = Place::Delimiter;
                    }
                    None => {
                        self.take(self.certain());
                        return Ok(None);
                    }
                },
                Place::Delimiter => match self.after_delimiter()? {
                    Some(place) => self.place = place,
                    None => return Ok(None),
                },
                Place::Headers => return self.headers(),
                Place::Data => {
                    if let Some(at) = find(&self.buffer, &self.delimiter) {
                        let mut data = self.take(at + self.delimiter.len());
                        data.truncate(at);
                        self.place = Place::Delimiter;
                        if !data.is_empty() {
                            return Ok(Some(Event::Data(data)));
                        }
                    } else {
                        let data = self.take(self.certain());
                        return Ok((!data.is_empty()).then_some(Event::Data(data)));
                    }
                }
                Place::End => {
                    self.buffer = Vec::new();
                    return Ok(Some(Event::End));
                }
            }
        }
    }

    /// What to say when the body is over before [`Event::End`] has come.
    pub fn cut_off(&self) -> String {
        let place = match self.place {
            Place::Preamble => "it has no part: the boundary of its Content-Type is not in it",
            Place::Delimiter | Place::Headers => "it ends among the headers of a part",
            Place::Data | Place::End => "it ends in the middle of a part",
        };
        format!("body: {place}")
    }

    fn take(&mut self, bytes: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(bytes);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// How many bytes cannot be the beginning of a delimiter that is still to come.
    fn certain(&self) -> usize {
        let most = self.delimiter.len() - 1;
        let from = self.buffer.len().saturating_sub(most);
        let begins = |at: &usize| self.delimiter.starts_with(&self.buffer[*at..]);
        (from..self.buffer.len())
            .find(begins)
            .unwrap_or(self.buffer.len())
    }

    fn after_delimiter(&mut self) -> Result<Option<Place>, String> {
        let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
        let blanks = self.buffer.iter().take_while(|byte| blank(byte)).count();
        if blanks > MAX_HEADERS {
            return Err("body: too many blanks behind a boundary".to_owned());
        }
        let Some(next) = self.buffer.get(blanks..blanks + 2) else {
            return Ok(None);
        };
        let place = match next {
            b"--" if blanks == 0 => Place::End,
            // The line end stays: with no headers at all it is the first half of the empty line.
            b"\r\n" => Place::Headers,
            _ => {
                let problem = "body: expected a line end or two hyphens behind the boundary";
                return Err(problem.to_owned());
            }
        };
        self.take(blanks);
        Ok(Some(place))
    }

    fn headers(&mut self) -> Result<Option<Event>, String> {
        let end = find(&self.buffer, b"\r\n\r\n");
        if end.unwrap_or(self.buffer.len()) > MAX_HEADERS {
            return Err(format!(
                "body: the headers of a part are over {MAX_HEADERS} bytes"
            ));
        }
        let Some(end) = end else {
            return Ok(None);
        };
        let headers = self.take(end + 4);
        self.place = Place::Data;
        // So that a part without any bytes ends with a delimiter like the others.
        let headers = String::from_utf8(headers)
            .map_err(|_| "body: the headers of a part are not UTF-8".to_owned())?;
        let disposition = headers.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_it = name.trim().eq_ignore_ascii_case("content-disposition");
            is_it.then(|| value.trim().to_owned())
        });
        let disposition = disposition.unwrap_or_default();
        let (kind, parameters) = disposition.split_once(';').unwrap_or((&disposition, ""));
        let name = parameter(parameters, "name");
        match name.filter(|_| kind.trim().eq_ignore_ascii_case("form-data")) {
            Some(name) => {
                let file_name = parameter(parameters, "filename");
                Ok(Some(Event::Part { name, file_name }))
            }
            None => Err(
                "body: a part has no header Content-Disposition: form-data; name=\"…\"".to_owned(),
            ),
        }
    }
}

/// The value of a parameter of a header, `; name=value` or `; name="value"`.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_matches(|letter: char| letter == ';' || letter.is_whitespace());
        let (value, behind) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (value, behind) = after.split_once(';').unwrap_or((after, ""));
                (value.trim().to_owned(), behind)
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = behind;
    }
}

/// A text up to its closing quote, and what is behind that; a backslash takes what follows as it is.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            letter => value.push(letter),
        }
    }
    None
}

/// Where `wanted` begins in `bytes`.
fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let (first, others) = wanted.split_first()?;
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| byte == first) {
        let at = from + at;
        if bytes[at + 1..].starts_with(others) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=\"b\"";

    /// The parts of a body that comes in pieces of `size` bytes.
    fn read(body: &[u8], size: usize) -> Result<Vec<(String, Vec<u8>)>, String> {
        let mut parser = Parser::new(Some(TYPE))?;
        let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
        for piece in body.chunks(size) {
            parser.push(piece);
            assert!(parser.buffer.len() <= size + MAX_HEADERS + 100);
            while let Some(event) = parser.read()? {
                match event {
                    Event::Part { name, file_name } => {
                        let name =
                            file_name.map_or(name.clone(), |file| format!("{name} of {file}"));
                        parts.push((name, Vec::new()));
                    }
                    Event::Data(data) => parts.last_mut().unwrap().1.extend(data),
                    Event::End => return Ok(parts),
                }
            }
        }
        Err(parser.cut_off())
    }

    fn read_in_all_pieces(body: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
        let whole = read(body, body.len().max(1));
        for size in 1..body.len() {
            assert_eq!(read(body, size), whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn parts_are_read_whatever_the_pieces_in_which_they_come() {
        let body = b"a preamble\r\n--b\r\nContent-Disposition: form-data; filename=\"x;name=y\"; \
            name=\"model.onnx\"\r\nContent-Type: application/octet-stream\r\n\r\n\x00\r\n--\r\n-\r\n--\
            \r\r\n--b  \r\ncontent-disposition:form-data;name=empty\r\n\r\n\r\n--b\r\n\
            Content-Disposition: form-data; name=\"a\\\"b\"\r\n\r\n--b\r\n--b--\r\nan epilogue";
        let expected = vec![
            (
                "model.onnx of x;name=y".to_owned(),
                b"\x00\r\n--\r\n-\r\n--\r".to_vec(),
            ),
            ("empty".to_owned(), Vec::new()),
            ("a\"b".to_owned(), b"--b".to_vec()),
        ];
        assert_eq!(read_in_all_pieces(body), Ok(expected));
        assert_eq!(read_in_all_pieces(b"--b--"), Ok(Vec::new()));
    }

    #[test]
    fn junk_is_refused_with_its_place() {
        let part = "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n";
        for (body, expected) in [
            (String::new(), "no part"),
            ("junk".to_owned(), "no part"),
            ("--bbb".to_owned(), "behind the boundary"),
            ("--b\r\n\r\n".to_owned(), "Content-Disposition"),
            (
                "--b\r\nContent-Disposition: form-data\r\n\r\n".to_owned(),
                "name=",
            ),
            (
                "--b\r\nContent-Disposition: attachment; name=x\r\n\r\n".to_owned(),
                "form-data",
            ),
            (
                "--b\r\nContent-Disposition: form-data; name=\"x\r\n\r\n".to_owned(),
                "name=",
            ),
            (part.to_owned(), "in the middle of a part"),
            (format!("{part}data\r\n--b\r\n"), "among the headers"),
            (
                format!("--b\r\n{}", "x".repeat(MAX_HEADERS + 1)),
                "over 8192 bytes",
            ),
        ] {
            let problem = read(body.as_bytes(), body.len().max(1)).unwrap_err();
            assert!(problem.contains(expected), "{body:.60}: {problem}");
        }
        for kind in [
            None,
            Some("application/json"),
            Some("multipart/form-data"),
            Some("multipart/form-data; boundary="),
            Some("multipart/form-data; boundary=\"a\nb\""),
        ] {
            assert!(Parser::new(kind).is_err(), "{kind:?}");
        }
        let long = format!("multipart/form-data; boundary={}", "b".repeat(71));
        assert!(Parser::new(Some(&long)).is_err());
    }

    #[test]
    fn no_body_makes_it_panic_and_pieces_never_matter() {
        let mut random = fastrand::Rng::with_seed(7);
        let words: [&[u8]; 8] = [
            b"--b",
            b"\r\n",
            b"--",
            b"Content-Disposition: form-data; name=\"x\"\r\n\r\n",
            b"Content-Disposition: form-data; name=",
            b"\"\\",
            b"data",
            b"\r",
        ];
        for _ in 0..3000 {
            let count = random.usize(0..12);
            let chosen = std::iter::repeat_with(|| words[random.usize(0..words.len())]);
            let body = chosen.take(count).collect::<Vec<_>>().concat();
            let whole = read(&body, body.len().max(1));
            let size = random.usize(1..10);
            assert_eq!(
                read(&body, size),
                whole,
                "{:?}",
                String::from_utf8_lossy(&body)
            );
        }
    }
}
