//! Routes with who may use them: there is no other way to register one.
//!
//! [`Routes::add`] takes what a route asks for together with the route, so a route without it cannot
//! be written. What is served although it did not come through here – a route added to the router
//! behind its back, a method nobody listed – is closed to everyone but `admin`, and
//! [`check`] refuses to start a server whose description has such a path.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::routing::MethodRouter;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, ContentBuilder, OpenApi, Ref, ResponseBuilder};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::serve::App;
use crate::serve::auth::{Access, Scope};

/// What the security scheme is called in the description.
const SCHEME: &str = "api_key";

/// Routes, their description, and who may use them.
pub struct Routes {
    router: OpenApiRouter<Arc<App>>,
    table: AccessTable,
}

/// What each route asks for, by its path as it is registered and its method.
#[derive(Default)]
pub struct AccessTable {
    paths: HashMap<String, Vec<(Method, Rule)>>,
}

/// What a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub access: Access,
    /// Whether its calls leave a row in the audit log.
    pub is_recorded: bool,
}

/// Of what is not listed.
const CLOSED: Rule = Rule {
    access: Access::Needs(Scope::Admin),
    is_recorded: false,
};

impl AccessTable {
    /// The rule of a route; that of `admin` when there is none.
    pub fn rule(&self, path: &str, method: &Method) -> Rule {
        let Some(rules) = self.paths.get(path) else {
            return CLOSED;
        };
        // axum answers HEAD with the handler of GET.
        let method = match *method {
            Method::HEAD => &Method::GET,
            _ => method,
        };
        let found = rules.iter().find(|(listed, _)| listed == method);
        found.map_or(CLOSED, |(_, rule)| *rule)
    }

    /// Opens a path that is served beside the routes, for GET.
    pub fn open(&mut self, path: &str) {
        self.set(path, Method::GET, Access::Public, false);
    }

    fn set(&mut self, path: &str, method: Method, access: Access, is_read_only: bool) {
        let is_administrative = matches!(access, Access::Needs(scope) if scope.is_administrative());
        let rule = Rule {
            access,
            is_recorded: is_administrative && !is_read_only && method != Method::GET,
        };
        let rules = self.paths.entry(path.to_owned()).or_default();
        rules.push((method, rule));
    }

    fn has(&self, path: &str, method: &Method) -> bool {
        let rules = self.paths.get(path);
        rules.is_some_and(|rules| rules.iter().any(|(listed, _)| listed == method))
    }
}

impl Routes {
    /// None yet.
    pub fn new(description: OpenApi) -> Routes {
        Routes {
            router: OpenApiRouter::with_openapi(description),
            table: AccessTable::default(),
        }
    }

    /// Adds documented routes that ask for `access`.
    pub fn add(self, access: Access, routes: UtoipaMethodRouter<Arc<App>>) -> Routes {
        self.add_documented(access, false, routes)
    }

    /// The same of routes that change nothing whatever their method is: they leave no audit rows.
    pub fn add_read_only(self, access: Access, routes: UtoipaMethodRouter<Arc<App>>) -> Routes {
        self.add_documented(access, true, routes)
    }

    fn add_documented(
        mut self,
        access: Access,
        is_read_only: bool,
        (schemas, mut paths, methods): UtoipaMethodRouter<Arc<App>>,
    ) -> Routes {
        for (path, item) in &mut paths.paths {
            for (method, operation) in operations(item) {
                describe(operation, access);
                self.table.set(path, method, access, is_read_only);
            }
        }
        self.router = self.router.routes((schemas, paths, methods));
        self
    }

    /// Adds a path that the description cannot express.
    pub fn add_undocumented(
        mut self,
        access: Access,
        path: &str,
        methods: &[Method],
        router: MethodRouter<Arc<App>>,
    ) -> Routes {
        for method in methods {
            self.table.set(path, method.clone(), access, false);
        }
        self.router = self.router.route(path, router);
        self
    }

    /// The routes, their description and the table of who may use them.
    pub fn finish(self) -> (Router<Arc<App>>, OpenApi, AccessTable) {
        let (router, mut description) = self.router.split_for_parts();
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("bw_<id>_<secret>")
            .description(Some(
                "An API key made by `bellwether keys create`. A server without keys asks for none.",
            ))
            .build();
        let components = description
            .components
            .get_or_insert_with(|| ComponentsBuilder::new().build());
        components.add_security_scheme(SCHEME, SecurityScheme::Http(scheme));
        (router, description, self.table)
    }
}

/// Whether everything that is described has a rule.
///
/// # Errors
/// The first path that has none.
pub fn check(description: &OpenApi, table: &AccessTable) -> Result<(), String> {
    for (path, item) in &description.paths.paths {
        for (method, _) in operations(&mut item.clone()) {
            if !table.has(path, &method) {
                return Err(format!(
                    "{method} {path}: described, and nobody has said which scope it needs"
                ));
            }
        }
    }
    Ok(())
}

/// The operations of a path.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let all = [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
        (Method::OPTIONS, &mut item.options),
        (Method::HEAD, &mut item.head),
        (Method::PATCH, &mut item.patch),
        (Method::TRACE, &mut item.trace),
    ];
    all.into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Says in the description what an operation needs and what the refusals are.
fn describe(operation: &mut Operation, access: Access) {
    let Access::Needs(scope) = access else {
        return;
    };
    let needed = [scope.name()];
    operation.security = Some(vec![SecurityRequirement::new(SCHEME, needed)]);
    let responses = &mut operation.responses.responses;
    let lacks = format!("The API key lacks the scope `{}`", scope.name());
    for (status, description) in [
        ("401", "No API key, or one that is not in force"),
        ("403", lacks.as_str()),
        ("429", "More requests than the API key may make"),
    ] {
        let refusal = || {
            let content = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("ErrorBody")))
                .build();
            ResponseBuilder::new()
                .description(description)
                .content("application/json", content)
                .build()
                .into()
        };
        responses.entry(status.to_owned()).or_insert_with(refusal);
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use utoipa::openapi::path::{HttpMethod, OperationBuilder};
    use utoipa::openapi::{OpenApiBuilder, PathsBuilder};

    use super::*;

    fn documented(path: &str, method: HttpMethod) -> UtoipaMethodRouter<Arc<App>> {
        let item = PathItem::new(method, OperationBuilder::new());
        let paths = PathsBuilder::new().path(path, item).build();
        (Vec::new(), paths, get(async || ""))
    }

    #[test]
    fn a_rule_is_that_of_path_and_method_and_everything_else_is_closed() {
        let score = Access::Needs(Scope::Score);
        let deploy = Access::Needs(Scope::Deploy);
        let routes = Routes::new(OpenApiBuilder::new().build())
            .add(score, documented("/a", HttpMethod::Get))
            .add(deploy, documented("/b/{name}", HttpMethod::Post))
            .add_read_only(deploy, documented("/c", HttpMethod::Post))
            .add_undocumented(deploy, "/d/{*more}", &[Method::PUT], get(async || ""));
        let (_, description, mut table) = routes.finish();
        table.open("/docs");
        let rule = |path: &str, method: Method| {
            let rule = table.rule(path, &method);
            (rule.access, rule.is_recorded)
        };
        assert_eq!(rule("/a", Method::GET), (score, false));
        assert_eq!(rule("/a", Method::HEAD), (score, false));
        assert_eq!(rule("/b/{name}", Method::POST), (deploy, true));
        assert_eq!(rule("/c", Method::POST), (deploy, false));
        assert_eq!(rule("/d/{*more}", Method::PUT), (deploy, true));
        assert_eq!(rule("/docs", Method::GET), (Access::Public, false));
        let closed = (Access::Needs(Scope::Admin), false);
        assert_eq!(rule("/a", Method::DELETE), closed);
        assert_eq!(rule("/docs", Method::POST), closed);
        assert_eq!(rule("/unheard-of", Method::GET), closed);
        assert_eq!(check(&description, &table), Ok(()));
    }

    #[test]
    fn a_described_path_without_a_rule_is_found() {
        let routes = Routes::new(OpenApiBuilder::new().build());
        let added = routes.add(Access::Public, documented("/a", HttpMethod::Get));
        let (_, mut description, table) = added.finish();
        let item = PathItem::new(HttpMethod::Put, OperationBuilder::new());
        description
            .paths
            .paths
            .insert("/forgotten".to_owned(), item);
        let said = check(&description, &table).unwrap_err();
        assert!(said.contains("PUT /forgotten"), "{said}");
    }
}
