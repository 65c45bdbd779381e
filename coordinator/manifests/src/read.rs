//! Objects from text: what `kubectl get … -o yaml` (or json) prints, in any order.
//!
//! Documents may be Lists, typed (`PodList`) or not, also nested. An item is turned into its typed object as soon as it
//! is complete and the untyped form dropped, so that a List of a whole cluster costs little more than its objects. A
//! cluster may have any size; what nests too deep for the stack, or grows by repeating itself, is refused.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use crate::{Kind, Object, convert::WITHOUT_NAME};

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON, one value or several.
    Json,
    /// YAML, one document or several.
    Yaml,
    /// JSON if it begins with a brace and is JSON, YAML otherwise.
    Unknown,
}

/// Why a text is no list of objects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", position.map(|(line, column)| format!("line {line}, column {column}: ")).unwrap_or_default())]
pub struct ReadError {
    /// Line and column, from 1, if known.
    pub position: Option<(u64, u64)>,
    /// What is wrong; names the object and the field's path where there is one.
    pub message: String,
}

/// Reads all objects of kinds that are known; others are passed over.
///
/// # Errors
/// If the text is neither JSON nor YAML, or a field that is read has the wrong type.
pub fn objects(text: &str, format: Format) -> Result<Vec<Object>, ReadError> {
    match format {
        Format::Json => json(text),
        Format::Yaml => yaml(text),
        Format::Unknown if text.trim_start().starts_with('{') => {
            json(text).or_else(|error| yaml(text).map_err(|_| error))
        }
        Format::Unknown => yaml(text),
    }
}

fn json(text: &str) -> Result<Vec<Object>, ReadError> {
    let mut all = Vec::new();
    for document in serde_json::Deserializer::from_str(text).into_iter::<Document>() {
        all.extend(document.map_err(|error| of_json(&error))?.0);
    }
    Ok(all)
}

/// Reads JSON, one value or several, and hands over each object as soon as it is complete: neither the text nor the
/// objects are ever held as a whole.
///
/// # Errors
/// As [`objects`]; what came before was handed over.
pub fn each_of_json(reader: impl std::io::Read, mut take: impl FnMut(Object)) -> Result<(), ReadError> {
    let mut json = serde_json::Deserializer::from_reader(reader);
    // What follows a value is looked at, not taken.
    while json.end().is_err() {
        let seed = ObjectSeed::of_document(&mut take);
        seed.deserialize(&mut json).map_err(|error| of_json(&error))?;
    }
    Ok(())
}

fn of_json(error: &serde_json::Error) -> ReadError {
    ReadError {
        position: Some((error.line() as u64, error.column() as u64)).filter(|_| error.line() > 0),
        message: without_position(&error.to_string()),
    }
}

/// serde_json ends its messages with the position, which is said in front already.
fn without_position(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).to_owned()
}

fn yaml(text: &str) -> Result<Vec<Object>, ReadError> {
    let options = serde_saphyr::options! {
        budget: budget(),
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
        strict_booleans: true,
        with_snippet: false,
    };
    let mut reader = text.as_bytes();
    let mut all = Vec::new();
    for document in serde_saphyr::read_with_options::<_, Option<Document>>(&mut reader, options) {
        let document = document.map_err(|error| ReadError {
            position: error.location().map(|at| (at.line(), at.column())),
            message: error.without_snippet().to_string(),
        })?;
        all.extend(document.into_iter().flat_map(|document| document.0));
    }
    Ok(all)
}

/// Any size, but no deeper than the stack of a thread allows (definitions of custom resources reach half of that), and
/// what is written once and repeated stays below 256 MiB.
fn budget() -> Option<serde_saphyr::Budget> {
    serde_saphyr::budget! {
        max_depth: 64,
        max_aliases: 1_000,
        max_recorded_anchor_bytes: 256 << 10,
        enforce_alias_anchor_ratio: false,
        max_reader_input_bytes: None,
        max_events: usize::MAX,
        max_documents: usize::MAX,
        max_nodes: usize::MAX,
        max_total_scalar_bytes: usize::MAX,
    }
}

/// One document: an object, or a list of them.
struct Document(Vec<Object>);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut objects = Vec::new();
        ObjectSeed::of_document(&mut |object| objects.push(object)).deserialize(deserializer)?;
        Ok(Self(objects))
    }
}

/// `apiVersion` and `kind` that a typed list gives to its items.
#[derive(Clone)]
struct TypeMeta {
    api_version: Option<String>,
    kind: String,
}

/// Reads one object or list, hands what it finds to `take`, and returns an item whose kind is not known yet.
struct ObjectSeed<'o> {
    inherited: Option<TypeMeta>,
    is_item: bool,
    take: &'o mut dyn FnMut(Object),
}

impl<'o> ObjectSeed<'o> {
    fn of_document(take: &'o mut dyn FnMut(Object)) -> Self {
        Self {
            inherited: None,
            is_item: false,
            take,
        }
    }
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes object or List")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = serde_json::Map::new();
        let mut untyped_items = Vec::new();
        let mut is_list = false;
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "items" => {
                    is_list = true;
                    let inherited = type_of(&fields).and_then(TypeMeta::of_items);
                    let seed = ItemsSeed {
                        inherited,
                        take: &mut *self.take,
                        untyped: &mut untyped_items,
                    };
                    map.next_value_seed(seed)?;
                }
                "kind" | "apiVersion" | "metadata" | "spec" | "status" | "value" | "globalDefault"
                | "provisioner" | "volumeBindingMode" | "allowedTopologies" => {
                    let value: Value = map.next_value()?;
                    fields.insert(name, value);
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let own = type_of(&fields).or(self.inherited);
        if is_list && own.as_ref().is_none_or(TypeMeta::is_list) {
            let inherited = own.and_then(TypeMeta::of_items);
            for item in untyped_items {
                let Some(inherited) = &inherited else {
                    return Err(without_kind(&item));
                };
                push(self.take, inherited, item)?;
            }
            return Ok(None);
        }
        let value = Value::Object(fields);
        match own {
            Some(own) => {
                push(self.take, &own, value)?;
                Ok(None)
            }
            None if self.is_item => Ok(Some(value)),
            None => Err(without_kind(&value)),
        }
    }
}

fn without_kind<E: de::Error>(object: &Value) -> E {
    let (namespace, name) = (text(object, "namespace"), text(object, "name"));
    let namespace = namespace.map(|namespace| namespace.to_owned() + "/");
    E::custom(format_args!(
        "object {}{}: kind: is missing: expected such as Pod, Node or List",
        namespace.unwrap_or_default(),
        name.unwrap_or(WITHOUT_NAME)
    ))
}

/// A text of the object's metadata.
fn text<'o>(object: &'o Value, key: &str) -> Option<&'o str> {
    object.get("metadata")?.get(key)?.as_str()
}

impl TypeMeta {
    fn is_list(&self) -> bool {
        self.kind.ends_with("List")
    }

    /// What `PodList` says of its items; `List` says nothing.
    fn of_items(self) -> Option<Self> {
        let kind = self
            .kind
            .strip_suffix("List")
            .filter(|kind| !kind.is_empty())?
            .to_owned();
        Some(Self { kind, ..self })
    }
}

fn type_of(fields: &serde_json::Map<String, Value>) -> Option<TypeMeta> {
    let kind = fields.get("kind")?.as_str()?.to_owned();
    let api_version = fields
        .get("apiVersion")
        .and_then(Value::as_str)
        .map(str::to_owned);
    Some(TypeMeta { api_version, kind })
}

fn push<E: de::Error>(take: &mut dyn FnMut(Object), of: &TypeMeta, value: Value) -> Result<(), E> {
    let Some(kind) = Kind::of(of.api_version.as_deref(), &of.kind) else {
        return Ok(());
    };
    let text = |key: &str| text(&value, key).map(str::to_owned);
    let (namespace, name) = (text("namespace"), text("name"));
    let object = Object::from_value(kind, value).map_err(|error| {
        let namespace = namespace
            .filter(|_| kind.is_namespaced())
            .map(|n| n + "/")
            .unwrap_or_default();
        let name = name.as_deref().unwrap_or(WITHOUT_NAME);
        E::custom(format_args!(
            "{kind} {namespace}{name}: {}: {}",
            error.path(),
            error.inner()
        ))
    })?;
    take(object);
    Ok(())
}

/// The items of a list.
struct ItemsSeed<'o> {
    inherited: Option<TypeMeta>,
    take: &'o mut dyn FnMut(Object),
    untyped: &'o mut Vec<Value>,
}

impl<'de> DeserializeSeed<'de> for ItemsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of Kubernetes objects")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(untyped) = items.next_element_seed(ObjectSeed {
            inherited: self.inherited.clone(),
            is_item: true,
            take: &mut *self.take,
        })? {
            self.untyped.extend(untyped);
        }
        Ok(())
    }
}
