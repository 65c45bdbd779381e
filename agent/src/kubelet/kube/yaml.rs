//! YAML as a tree of texts: all that a kubeconfig needs.
//!
//! The parser's events are put together here and not through serde, whose code for each struct would be more than the parser
//! itself, on every worker, for the one file that is read in this format.

use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// A collection that is being read.
enum Open {
    List(Vec<Value>),
    /// With the key whose value comes next.
    Table(Map<String, Value>, Option<String>),
}

impl Open {
    fn take(&mut self, value: Value) -> Result<(), String> {
        match self {
            Self::List(list) => list.push(value),
            Self::Table(table, key) => match (key.take(), value) {
                (None, Value::String(name)) => *key = Some(name),
                (None, _) => return Err("a key is no text".to_owned()),
                (Some(name), value) => {
                    if table.contains_key(&name) {
                        return Err(format!("`{name}` is there twice"));
                    }
                    table.insert(name, value);
                }
            },
        }
        Ok(())
    }

    fn close(self) -> Value {
        match self {
            Self::List(list) => Value::Array(list),
            Self::Table(table, _) => Value::Object(table),
        }
    }
}

/// The first document of `text`. A plain scalar is a text whatever it looks like, but for an empty one, `~` and `null`.
///
/// # Errors
/// What is wrong and in which line; also for an alias (`*name`), which no kubeconfig has.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let mut open: Vec<Open> = Vec::new();
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| error.to_string())?;
        let whole = match event {
            Event::Scalar(text, style, ..) => {
                let absent = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null");
                Some(if absent {
                    Value::Null
                } else {
                    Value::String(text.into_owned())
                })
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                None
            }
            Event::MappingStart(..) => {
                open.push(Open::Table(Map::new(), None));
                None
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(Open::close),
            Event::Alias(_) => return Err(format!("line {}: an alias is not understood", span.start.line())),
            // Begin and end of stream and document, comments.
            _ => None,
        };
        match (whole, open.last_mut()) {
            (None, _) => {}
            (Some(value), None) => return Ok(value),
            (Some(value), Some(outer)) => outer
                .take(value)
                .map_err(|error| format!("line {}: {error}", span.start.line()))?,
        }
    }
    Ok(Value::Null)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_in_any_of_yamls_styles_is_read() {
        let text = "# made by k3s\n---\nkind: Config\nclusters:\n- name: local\n  cluster:\n    server: \"https://x:6443\"\n    \
                    insecure: true\nusers: [{name: 'a', user: {}}]\nempty:\nnone: ~\nfolded: >-\n  two\n  lines\n";
        assert_eq!(
            read(text).unwrap(),
            json!({
                "kind": "Config",
                "clusters": [{"name": "local", "cluster": {"server": "https://x:6443", "insecure": "true"}}],
                "users": [{"name": "a", "user": {}}],
                "empty": null,
                "none": null,
                "folded": "two lines",
            })
        );
    }

    #[test]
    fn json_is_yaml() {
        assert_eq!(
            read(r#"{"a": ["b", {"c": null}]}"#).unwrap(),
            json!({"a": ["b", {"c": null}]})
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        assert!(
            read("a: b\na: c\n")
                .unwrap_err()
                .contains("line 2: `a` is there twice")
        );
        assert!(read("a: &x b\nc: *x\n").unwrap_err().contains("line 2"));
        assert!(read("a: [b\n").unwrap_err().contains("line"));
        assert!(read("{[a]: b}\n").unwrap_err().contains("no text"));
        assert_eq!(read("").unwrap(), Value::Null);
    }
}
