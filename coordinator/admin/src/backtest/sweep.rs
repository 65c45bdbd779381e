//! `--sweep KEY=VALUE,…`: values that a key of the policy is given, one after the other, before the policy is read.
//!
//! The value is put into the file's text, so that what is wrong with it is said as if somebody had written it there. Keys are
//! written as errors write them: `scale_down.sustained`, `pool[0].max_nodes`.

use std::{fmt, str::FromStr};

use toml_edit::{DocumentMut, InlineTable, Item, TableLike, Value, value};

/// A key and the values to try.
#[derive(Debug, Clone)]
pub(crate) struct Sweep {
    pub(super) key: KeyPath,
    pub(super) values: Vec<Scalar>,
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected KEY=VALUE,… such as scale_down.sustained=2m,5m,10m";
        let (key, values) = text.split_once('=').ok_or(expected)?;
        let key = key.trim().parse()?;
        let values = values.split(',').map(str::trim);
        let values: Option<Vec<Scalar>> = values
            .map(|value| (!value.is_empty()).then(|| Scalar::new(value)))
            .collect();
        Ok(Self {
            key,
            values: values.ok_or_else(|| format!("a value is empty: {expected}"))?,
        })
    }
}

/// A key's path in a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPath {
    /// Tables on the way; of an array of tables the element.
    tables: Vec<(String, Option<usize>)>,
    key: String,
}

impl FromStr for KeyPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let step = |part: &str| {
            let (name, index) = match part.split_once('[') {
                None => (part, None),
                Some((name, rest)) => (name, Some(rest.strip_suffix(']')?.parse().ok()?)),
            };
            let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            (!name.is_empty() && name.chars().all(is_bare)).then(|| (name.to_owned(), index))
        };
        let steps: Option<Vec<_>> = text.split('.').map(step).collect();
        let last = steps.and_then(|mut steps| steps.pop().map(|last| (steps, last)));
        match last {
            Some((tables, (key, None))) => Ok(Self { tables, key }),
            _ => Err(format!(
                "`{text}` is no key: expected a path such as scale_down.sustained or pool[0].max_nodes"
            )),
        }
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, index) in &self.tables {
            match index {
                Some(index) => write!(f, "{name}[{index}].")?,
                None => write!(f, "{name}.")?,
            }
        }
        f.write_str(&self.key)
    }
}

/// A value: what TOML reads as one, any other text as a string.
#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    /// As it was given.
    text: String,
    value: Value,
}

impl Scalar {
    fn new(text: &str) -> Self {
        let scalar = |value: &Value| !value.is_array() && !value.is_inline_table();
        let value = text.parse().ok().filter(scalar).unwrap_or_else(|| text.into());
        Self {
            text: text.to_owned(),
            value,
        }
    }

    /// As JSON has it; a date is a string there.
    pub(super) fn json(&self) -> serde_json::Value {
        match &self.value {
            Value::String(text) => text.value().as_str().into(),
            Value::Integer(number) => (*number.value()).into(),
            Value::Float(number) => (*number.value()).into(),
            Value::Boolean(is) => (*is.value()).into(),
            _ => self.text.as_str().into(),
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Every combination of the sweeps' values, the last sweep's the fastest.
pub(super) fn combinations(sweeps: &[Sweep]) -> Vec<Vec<(&KeyPath, &Scalar)>> {
    let none = vec![Vec::new()];
    sweeps.iter().fold(none, |combinations, sweep| {
        let with = |before: Vec<(_, _)>| {
            let values = sweep.values.iter();
            values.map(move |value| [&before[..], &[(&sweep.key, value)]].concat())
        };
        combinations.into_iter().flat_map(with).collect()
    })
}

/// The policy's text with these values in it; the lines of what was there stay.
///
/// # Errors
/// A sentence with the key: it cannot be in this file. Text that is no TOML is left to those who read policies.
pub(super) fn with(text: &str, set: &[(&KeyPath, &Scalar)]) -> Result<String, String> {
    let Ok(mut document) = text.parse::<DocumentMut>() else {
        return Ok(text.to_owned());
    };
    for (path, scalar) in set {
        let mut table: &mut dyn TableLike = document.as_table_mut();
        let mut so_far = String::new();
        for (name, index) in &path.tables {
            so_far = format!("{so_far}{name}");
            table = match index {
                None => table
                    .entry(name)
                    .or_insert(value(InlineTable::new()))
                    .as_table_like_mut()
                    .ok_or_else(|| format!("{so_far} is no table: {path} cannot be in it"))?,
                Some(index) => {
                    so_far = format!("{so_far}[{index}]");
                    let element = table.get_mut(name).and_then(|item| element(item, *index));
                    element.ok_or_else(|| format!("there is no {so_far}: {path} cannot be in it"))?
                }
            };
            so_far.push('.');
        }
        table.insert(&path.key, Item::Value(scalar.value.clone()));
    }
    Ok(document.to_string())
}

/// A table of an array of them, in either notation.
fn element(item: &mut Item, index: usize) -> Option<&mut dyn TableLike> {
    match item {
        Item::ArrayOfTables(tables) => tables.get_mut(index).map(|table| table as &mut dyn TableLike),
        Item::Value(Value::Array(values)) => values
            .get_mut(index)
            .and_then(Value::as_inline_table_mut)
            .map(|table| table as &mut dyn TableLike),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    fn set(text: &str, sweep: &str) -> Result<String, String> {
        let sweep: Sweep = sweep.parse()?;
        with(text, &[(&sweep.key, &sweep.values[0])])
    }

    #[test]
    fn a_value_is_what_toml_reads_as_one_and_else_a_string() {
        let sweep: Sweep = "a.b=true,0.5,10,5m,\"10\",[1],-,2026-01-02".parse().unwrap();
        let values: Vec<_> = sweep.values.iter().map(Scalar::json).collect();
        let expected = serde_json::json!([true, 0.5, 10, "5m", "10", "[1]", "-", "2026-01-02"]);
        assert_eq!(serde_json::Value::from(values), expected);
    }

    #[test]
    fn a_key_is_written_as_errors_write_it() {
        for key in [
            "mode",
            "scale_down.sustained",
            "pool[0].headroom.cpu",
            "a-b[12].c",
        ] {
            assert_eq!(key.parse::<KeyPath>().unwrap().to_string(), key);
        }
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "pool[0]",
            "pool[x].a",
            "pool[0.a",
            "a b",
            "pool[-1].a",
        ] {
            assert!(bad.parse::<KeyPath>().unwrap_err().contains("is no key"), "{bad}");
        }
        for bad in ["a.b", "a.b=", "a.b=1,,2", "=1"] {
            assert!(bad.parse::<Sweep>().unwrap_err().contains("expected"), "{bad}");
        }
    }

    #[test]
    fn a_value_stands_where_the_key_stands_and_lines_stay() {
        let text = "# why\n[limits]\nmin_nodes = 1 # one\nmax_nodes = 4\n\n[[pool]]\nname = \"a\"\n[[pool]]\nname = \"b\"\n";
        let min = set(text, "limits.min_nodes=2").unwrap();
        assert_eq!(min.lines().nth(2), Some("min_nodes = 2"));
        assert_eq!(min.lines().count(), text.lines().count());
        let pool = set(text, "pool[1].max_nodes=7").unwrap();
        assert!(pool.ends_with("name = \"b\"\nmax_nodes = 7\n"), "{pool}");
        let inline = set("pool = [{ name = \"a\" }]\n", "pool[0].name=b").unwrap();
        assert!(inline.contains("\"b\""), "{inline}");
    }

    #[test]
    fn a_key_that_the_file_lacks_is_put_into_its_table_which_is_made_if_need_be() {
        for (text, sweep) in [
            ("[a]\nb = 1\n", "c.d.e=5"),
            ("[c]\n[c.f]\ng = 1\n", "c.d.e=5"),
            ("c.f = 1\n", "c.d.e=5"),
            ("c = { d = { f = 1 } }\n", "c.d.e=5"),
            ("", "c.d.e=5"),
        ] {
            let with = set(text, sweep).unwrap();
            let read: toml::Table = toml::from_str(&with).unwrap();
            assert_eq!(read["c"]["d"]["e"].as_integer(), Some(5), "{with}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_in_the_file_is_named() {
        for (sweep, said) in [
            ("a.b.c=1", "a.b is no table: a.b.c cannot be in it"),
            (
                "pool[3].name=x",
                "there is no pool[3]: pool[3].name cannot be in it",
            ),
            ("a[0].b=x", "there is no a[0]"),
            ("pool.name=x", "pool is no table"),
        ] {
            let error = set("a.b = 1\n[[pool]]\nname = \"a\"\n", sweep).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(set("no toml", "a.b=1").unwrap(), "no toml");
    }

    #[test]
    fn combinations_are_all_of_all_and_the_last_changes_first() {
        let sweeps: Vec<Sweep> = vec!["a=1,2".parse().unwrap(), "b=x,y".parse().unwrap()];
        let texts: Vec<String> = combinations(&sweeps)
            .iter()
            .map(|set| set.iter().map(|(key, value)| format!("{key}={value} ")).collect())
            .collect();
        assert_eq!(texts, ["a=1 b=x ", "a=1 b=y ", "a=2 b=x ", "a=2 b=y "]);
        assert!(matches!(&combinations(&[])[..], [one] if one.is_empty()));
    }
}
