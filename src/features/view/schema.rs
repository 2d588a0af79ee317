//! The JSON schema of view files, for editors that complete and check TOML as it is typed.
//!
//! It is made from the same vocabulary as the reader ([`super::keys`]). It says what can be said key
//! by key; what features mean to each other is for `bellwether features check`.

use serde_json::{Map, Value as Json, json};

use super::keys::{FILE, Key, Section, Shape};

/// What a name may look like.
const NAME_PATTERN: &str = "^[a-z][a-z0-9_]{0,63}$";

/// The schema, JSON Schema 2020-12.
pub fn json_schema() -> Json {
    let mut schema = section(&FILE);
    if let Json::Object(fields) = &mut schema {
        let dialect = "https://json-schema.org/draft/2020-12/schema";
        fields.insert("$schema".to_owned(), Json::from(dialect));
        fields.insert("title".to_owned(), Json::from("Bellwether feature view"));
    }
    schema
}

fn section(section: &Section) -> Json {
    let mut properties = Map::new();
    for key in section.keys {
        properties.insert(key.name.to_owned(), property(key));
    }
    let required = section.keys.iter().filter(|key| key.required);
    json!({
        "type": "object",
        "description": section.about,
        "properties": properties,
        "required": required.map(|key| key.name).collect::<Vec<_>>(),
        "additionalProperties": false,
    })
}

fn property(key: &Key) -> Json {
    let mut schema = shape(&key.shape);
    if let Json::Object(fields) = &mut schema {
        fields.insert("description".to_owned(), Json::from(key.about));
        if key.name == "name" {
            fields.insert("pattern".to_owned(), Json::from(NAME_PATTERN));
        }
    }
    schema
}

fn shape(shape: &Shape) -> Json {
    let list = |items: Json| json!({"type": "array", "items": items});
    let filled = |items: Json| json!({"type": "array", "items": items, "minItems": 1});
    let text = || json!({"type": "string"});
    let scalar = || json!({"type": ["string", "number", "boolean"]});
    let duration =
        || json!({"type": "string", "pattern": "^\\s*[0-9]", "examples": ["30d", "12h"]});
    match shape {
        Shape::Text => text(),
        Shape::OneOf(words) => json!({"type": "string", "enum": words}),
        Shape::Texts => list(text()),
        Shape::TextOrTexts => json!({"anyOf": [text(), filled(text())]}),
        Shape::Scalar => scalar(),
        Shape::Scalars => list(scalar()),
        Shape::Number => json!({"type": "number"}),
        Shape::Whole => json!({"type": "integer", "minimum": 0}),
        Shape::Flag => json!({"type": "boolean"}),
        Shape::Duration => duration(),
        Shape::Durations => json!({"anyOf": [duration(), filled(duration())]}),
        Shape::Table(inner) => section(inner),
        Shape::Tables(inner) => filled(section(inner)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::view::View;

    fn repository_file(path: &str) -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    }

    /// What of a value does not fit a schema, for the keywords that are used here.
    fn misfits(schema: &Json, value: &Json, at: &str, found: &mut Vec<String>) {
        let fields = schema.as_object().unwrap();
        for (keyword, rule) in fields {
            let fits = match keyword.as_str() {
                "type" => match rule {
                    Json::Array(types) => types.iter().any(|one| is_a(value, one)),
                    one => is_a(value, one),
                },
                "enum" => rule.as_array().unwrap().contains(value),
                "minimum" => value.as_f64() >= rule.as_f64(),
                "minItems" => value.as_array().unwrap().len() as u64 >= rule.as_u64().unwrap(),
                "anyOf" => rule.as_array().unwrap().iter().any(|one| {
                    let mut inside = Vec::new();
                    misfits(one, value, at, &mut inside);
                    inside.is_empty()
                }),
                "items" => {
                    for (index, item) in value.as_array().unwrap().iter().enumerate() {
                        misfits(rule, item, &format!("{at}[{index}]"), found);
                    }
                    true
                }
                "properties" => {
                    for (name, inner) in value.as_object().unwrap() {
                        match rule.get(name) {
                            Some(schema) => misfits(schema, inner, &format!("{at}.{name}"), found),
                            None => found.push(format!("{at}.{name}: additional")),
                        }
                    }
                    true
                }
                "required" => rule
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|name| value.get(name.as_str().unwrap()).is_some()),
                "pattern"
                | "description"
                | "title"
                | "$schema"
                | "examples"
                | "additionalProperties" => true,
                other => panic!("{at}: unknown keyword {other}"),
            };
            if !fits {
                found.push(format!("{at}: {keyword} {rule}, found {value}"));
                // The other keywords assume the type.
                return;
            }
        }
    }

    fn is_a(value: &Json, kind: &Json) -> bool {
        match kind.as_str().unwrap() {
            "string" => value.is_string(),
            "number" => value.is_number(),
            "integer" => value.is_u64() || value.is_i64(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("unknown type {other}"),
        }
    }

    fn misfits_of(text: &str) -> Vec<String> {
        let value: Json = toml::from_str(text).unwrap();
        let mut found = Vec::new();
        misfits(&json_schema(), &value, "", &mut found);
        found
    }

    #[test]
    fn the_committed_schema_is_current() {
        let path = repository_file("docs/view.schema.json");
        let current = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
            std::fs::write(&path, &current).unwrap();
        }
        let committed = std::fs::read_to_string(&path)
            .unwrap()
            .replace("\r\n", "\n");
        assert!(
            committed == current,
            "docs/view.schema.json is out of date: `bellwether features schema > docs/view.schema.json`"
        );
    }

    #[test]
    fn the_sample_views_fit_the_schema_and_mistakes_do_not() {
        for file in std::fs::read_dir(repository_file("features")).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            View::parse(&text).unwrap();
            assert_eq!(misfits_of(&text), Vec::<String>::new());
        }
        let view = "[view]\nname = \"a\"\nentity = \"a_id\"\n[[feature]]\nname = \"x\"\n";
        for (rest, part) in [
            ("type = \"int\"", ".feature[0].type: enum"),
            ("typ = \"int64\"", ".feature[0].typ: additional"),
            ("type = \"int64\"\nmin = \"1\"", ".feature[0].min: type"),
            (
                "type = \"int64\"\naggregate = { event = \"e\", function = \"count\" }",
                ".feature[0].aggregate: required",
            ),
        ] {
            let text = format!("{view}{rest}\n");
            let found = misfits_of(&text).join("\n");
            assert!(found.contains(part), "{rest}: {found}");
            assert!(View::parse(&text).is_err(), "{rest}");
        }
    }
}
