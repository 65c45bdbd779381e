//! What a source says of its structs and enums.

use std::collections::BTreeMap;

use syn::{Attribute, Expr, Fields, GenericArgument, Item, Lit, Meta, PathArguments, Type};

/// The structs and enums of source files, and what their types are called in the reference.
#[derive(Default)]
pub struct Source {
    structs: BTreeMap<String, syn::ItemStruct>,
    enums: BTreeMap<String, syn::ItemEnum>,
    labels: BTreeMap<String, String>,
}

/// A key of a table.
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    pub(crate) meaning: String,
}

/// What stands at a key. The names are those of structs.
pub(crate) enum Shape {
    Value(Kind),
    Table(String),
    Tables(String),
    Named(String),
}

/// What a value is.
pub(crate) enum Kind {
    Plain(String),
    Choice(Vec<Word>),
    List(Box<Kind>),
    Map(Box<Kind>),
}

/// A value of an enum.
pub(crate) struct Word {
    pub(crate) name: String,
    pub(crate) meaning: String,
}

impl Kind {
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Plain(label) => label.clone(),
            Self::Choice(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("`{}`", word.name)).collect();
                words.join(", ")
            }
            Self::List(kind) => format!("list of {}", kind.label()),
            Self::Map(kind) => format!("table of {}", kind.label()),
        }
    }
}

impl Source {
    /// Reads files' texts. `labels` are the names, for readers, of types that are neither a table nor a choice, beside
    /// Rust's own.
    pub fn new(files: &[&str], labels: &[(&str, &str)]) -> Self {
        let own = [
            ("String", "text"),
            ("bool", "`true`, `false`"),
            ("u32", "number"),
            ("i32", "number"),
            ("f64", "number"),
            ("PathBuf", "path"),
            ("SocketAddr", "address:port"),
            ("IpAddr", "address"),
        ];
        let mut source = Self {
            labels: own
                .iter()
                .chain(labels)
                .map(|(name, label)| ((*name).to_owned(), (*label).to_owned()))
                .collect(),
            ..Self::default()
        };
        for text in files {
            for item in syn::parse_file(text).unwrap().items {
                // Of two with one name the first counts: the file that is read comes before those that it takes words from.
                match item {
                    Item::Struct(item) => {
                        source.structs.entry(item.ident.to_string()).or_insert(item);
                    }
                    Item::Enum(item) => {
                        source.enums.entry(item.ident.to_string()).or_insert(item);
                    }
                    _ => {}
                }
            }
        }
        source
    }

    pub(crate) fn keys(&self, name: &str) -> Vec<Key> {
        let item = self
            .structs
            .get(name)
            .unwrap_or_else(|| panic!("no struct {name}"));
        let Fields::Named(fields) = &item.fields else {
            panic!("{name} has no keys")
        };
        fields
            .named
            .iter()
            .map(|field| Key {
                name: serde(&field.attrs, "rename")
                    .unwrap_or_else(|| field.ident.as_ref().unwrap().to_string()),
                shape: self.shape(&field.ty),
                meaning: doc(&field.attrs),
            })
            .collect()
    }

    pub(crate) fn words(&self, name: &str) -> Vec<Word> {
        let item = self.enums.get(name).unwrap_or_else(|| panic!("no enum {name}"));
        let case = serde(&item.attrs, "rename_all").unwrap_or_default();
        item.variants
            .iter()
            .map(|variant| Word {
                name: serde(&variant.attrs, "rename")
                    .unwrap_or_else(|| in_case(&variant.ident.to_string(), &case)),
                meaning: doc(&variant.attrs),
            })
            .collect()
    }

    fn shape(&self, kind: &Type) -> Shape {
        let (name, inner) = named(kind);
        match (name.as_str(), inner.as_slice()) {
            ("Option", [inner]) => self.shape(inner),
            ("Vec", [inner]) => match self.shape(inner) {
                Shape::Table(table) if self.is_written_as_tables(&table) => Shape::Tables(table),
                Shape::Table(table) => Shape::Value(Kind::List(Box::new(Kind::Plain(self.inline(&table))))),
                Shape::Value(kind) => Shape::Value(Kind::List(Box::new(kind))),
                _ => panic!("a list of lists"),
            },
            ("BTreeMap", [_, inner]) => match self.shape(inner) {
                Shape::Table(table) => Shape::Named(table),
                Shape::Value(kind) => Shape::Value(Kind::Map(Box::new(kind))),
                _ => panic!("a table of lists"),
            },
            (name, []) => {
                if let Some(label) = self.labels.get(name) {
                    Shape::Value(Kind::Plain(label.clone()))
                } else if self.enums.contains_key(name) {
                    Shape::Value(Kind::Choice(self.words(name)))
                } else if self.structs.contains_key(name) {
                    Shape::Table(name.to_owned())
                } else {
                    panic!("nobody says what a {name} is");
                }
            }
            (name, _) => panic!("{name} has parameters"),
        }
    }

    /// A struct of three keys at most that has no tables itself is written on one line: `{ key = …, value = … }`.
    fn is_written_as_tables(&self, table: &str) -> bool {
        self.keys(table).len() > 3
    }

    fn inline(&self, table: &str) -> String {
        let keys: Vec<String> = self.keys(table).iter().map(|key| key.name.clone()).collect();
        format!("`{{ {} }}`", keys.join(", "))
    }
}

/// The last name of a path and its parameters.
fn named(kind: &Type) -> (String, Vec<&Type>) {
    let Type::Path(path) = kind else {
        panic!("a type without a name")
    };
    let last = path.path.segments.last().unwrap();
    let inner = match &last.arguments {
        PathArguments::AngleBracketed(inner) => inner
            .args
            .iter()
            .filter_map(|argument| match argument {
                GenericArgument::Type(kind) => Some(kind),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    (last.ident.to_string(), inner)
}

/// The doc comment, in one line.
fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join(" ")
}

/// The text of `#[serde(name = "text")]`.
fn serde(attributes: &[Attribute], name: &str) -> Option<String> {
    let mut found = None;
    for attribute in attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("serde"))
    {
        attribute
            .parse_nested_meta(|meta| {
                if meta.input.peek(syn::Token![=]) {
                    let text: syn::LitStr = meta.value()?.parse()?;
                    if meta.path.is_ident(name) {
                        found = Some(text.value());
                    }
                }
                Ok(())
            })
            .unwrap();
    }
    found
}

fn in_case(name: &str, case: &str) -> String {
    let between = match case {
        "" => return name.to_owned(),
        "lowercase" => "",
        "snake_case" => "_",
        "kebab-case" => "-",
        other => panic!("nobody has taught `{other}` here"),
    };
    let mut word = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !word.is_empty() {
            word.push_str(between);
        }
        word.extend(letter.to_lowercase());
    }
    word
}

#[cfg(test)]
mod tests {
    use super::in_case;

    #[test]
    fn words_are_written_as_serde_writes_them() {
        assert_eq!(in_case("OnDemand", "kebab-case"), "on-demand");
        assert_eq!(in_case("ScaleUp", "snake_case"), "scale_up");
        assert_eq!(in_case("Ec2", "lowercase"), "ec2");
        assert_eq!(in_case("NoSchedule", ""), "NoSchedule");
    }
}
