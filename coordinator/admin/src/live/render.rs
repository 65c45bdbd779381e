//! Answers as JSON and YAML: the contract's own JSON form with the names of its fields as they stand in the protos,
//! every field present, 64-bit numbers as numbers.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions, prost::Message};
use serde_json::Value;
use smartscale_proto::FILE_DESCRIPTOR_SET;

use super::failure::Failure;

/// An answer of the contract.
pub(super) trait Answer: Message {
    /// Its name in the contract.
    const NAME: &'static str;
    /// Fields whose text is JSON itself; they are printed as what they hold.
    const EMBEDDED: &'static [&'static str] = &[];
    /// For people.
    fn table(&self) -> String;
}

static CONTRACT: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).ok());

fn value<A: Answer>(answer: &A) -> Result<Value, Failure> {
    let failed =
        |what: &dyn std::fmt::Display| Failure::Failed(format!("the answer has no JSON form: {what}"));
    let descriptor = CONTRACT
        .as_ref()
        .and_then(|pool| pool.get_message_by_name(&format!("smartscale.v1.{}", A::NAME)))
        .ok_or_else(|| failed(&A::NAME))?;
    let mut message = DynamicMessage::new(descriptor);
    message.transcode_from(answer).map_err(|error| failed(&error))?;
    let options = SerializeOptions::new()
        .skip_default_fields(false)
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false);
    let mut value = message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|error| failed(&error))?;
    unfold(&mut value, A::EMBEDDED);
    Ok(value)
}

/// Replaces `…_json` texts by what they hold, under the name without that ending.
fn unfold(value: &mut Value, fields: &[&str]) {
    match value {
        Value::Object(object) => {
            for field in fields {
                if let Some(Value::String(text)) = object.get(*field)
                    && let Ok(parsed) = serde_json::from_str::<Value>(text)
                {
                    object.remove(*field);
                    object.insert(field.trim_end_matches("_json").to_owned(), parsed);
                }
            }
            object.values_mut().for_each(|value| unfold(value, fields));
        }
        Value::Array(array) => array.iter_mut().for_each(|value| unfold(value, fields)),
        _ => {}
    }
}

pub(super) fn json<A: Answer>(answer: &A) -> Result<String, Failure> {
    serde_json::to_string_pretty(&value(answer)?).map_err(|error| Failure::Failed(error.to_string()))
}

pub(super) fn json_line<A: Answer>(answer: &A) -> Result<String, Failure> {
    serde_json::to_string(&value(answer)?).map_err(|error| Failure::Failed(error.to_string()))
}

pub(super) fn yaml<A: Answer>(answer: &A) -> Result<String, Failure> {
    serde_saphyr::to_string(&value(answer)?).map_err(|error| Failure::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use smartscale_proto::v1;

    use super::*;

    #[test]
    fn every_field_is_there_under_its_own_name_and_what_is_unknown_is_absent() {
        let status = v1::StatusResponse {
            cluster_id: "demo".to_owned(),
            epoch: 7,
            ..v1::StatusResponse::default()
        };
        let value: Value = serde_json::from_str(&json(&status).unwrap()).unwrap();
        assert_eq!(
            (value["cluster_id"].as_str(), value["epoch"].as_u64()),
            (Some("demo"), Some(7))
        );
        assert_eq!(value["nodes_ready"].as_u64(), Some(0));
        assert!(value.get("cpu_percent").is_none_or(Value::is_null));
        assert!(yaml(&status).unwrap().contains("cluster_id: demo"));
    }

    #[test]
    fn a_plan_in_an_answer_is_printed_as_what_it_is() {
        let decision = v1::DecisionView {
            plan_json: "{\"action\":\"none\"}".to_owned(),
            ..v1::DecisionView::default()
        };
        let list = v1::ListDecisionsResponse {
            decisions: vec![decision],
        };
        let value: Value = serde_json::from_str(&json(&list).unwrap()).unwrap();
        assert_eq!(value["decisions"][0]["plan"]["action"], "none");
    }
}
