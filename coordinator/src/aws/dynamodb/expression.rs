//! Update expressions: clauses with placeholders for every name and value, since many names are reserved words.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

/// An update's clauses with their placeholders.
#[derive(Debug, Default)]
pub(super) struct Expression {
    set: Vec<String>,
    remove: Vec<String>,
    add: Vec<String>,
    pub(super) condition: Option<String>,
    pub(super) names: HashMap<String, String>,
    pub(super) values: HashMap<String, AttributeValue>,
}

impl Expression {
    /// A placeholder of its own: many names are reserved words.
    fn name(&mut self, name: &str) -> String {
        let placeholder = format!("#n{}", self.names.len());
        self.names.insert(placeholder.clone(), name.to_owned());
        placeholder
    }

    pub(super) fn value(&mut self, placeholder: &str, value: AttributeValue) {
        self.values.insert(placeholder.to_owned(), value);
    }

    fn pair(&mut self, name: &str, value: AttributeValue) -> (String, String) {
        let name = self.name(name);
        let placeholder = format!(":v{}", self.values.len());
        self.value(&placeholder, value);
        (name, placeholder)
    }

    pub(super) fn set(&mut self, name: &str, value: AttributeValue) {
        let (name, value) = self.pair(name, value);
        self.set.push(format!("{name} = {value}"));
    }

    pub(super) fn add(&mut self, name: &str, value: AttributeValue) {
        let (name, value) = self.pair(name, value);
        self.add.push(format!("{name} {value}"));
    }

    pub(super) fn remove(&mut self, name: &str) {
        let name = self.name(name);
        self.remove.push(name);
    }

    pub(super) fn text(&self) -> String {
        let clauses = [("SET", &self.set), ("REMOVE", &self.remove), ("ADD", &self.add)];
        let clauses = clauses.iter().filter(|(_, parts)| !parts.is_empty());
        clauses
            .map(|(word, parts)| format!("{word} {}", parts.join(", ")))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_names_everything_by_placeholders() {
        let number = |number: u8| AttributeValue::N(number.to_string());
        let mut update = Expression::default();
        update.set("count", number(1));
        update.remove("size");
        update.add("version", number(1));
        assert_eq!(update.text(), "SET #n0 = :v0 REMOVE #n1 ADD #n2 :v1");
    }
}
