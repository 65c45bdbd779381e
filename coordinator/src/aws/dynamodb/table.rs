//! The table: made on demand, by as many coordinators at once as there are.

use std::time::Duration;

use aws_sdk_dynamodb::{
    error::ProvideErrorMetadata,
    types::{
        AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableStatus,
        TimeToLiveSpecification,
    },
};

use super::{DynamoStore, failure::build_error};
use crate::state::StoreError;

/// How long a new table may take to become what it should be.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const PERIOD: Duration = Duration::from_millis(500);
/// What DynamoDB says while somebody else makes the same table: not there yet, or just being changed.
const UNDER_WAY: [&str; 4] = [
    "ResourceNotFoundException",
    "ResourceInUseException",
    "LimitExceededException",
    "ValidationException",
];

impl DynamoStore {
    /// Creates the table, on demand, with its time to live, and waits until it can be used. A table that is there
    /// already is no error.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when DynamoDB refuses, or the table is not ready within a minute.
    pub async fn create_table(&self) -> Result<(), StoreError> {
        let attribute = |name: &str| {
            AttributeDefinition::builder()
                .attribute_name(name)
                .attribute_type(ScalarAttributeType::S)
                .build()
                .map_err(build_error)
        };
        let key = |name: &str, kind| {
            KeySchemaElement::builder()
                .attribute_name(name)
                .key_type(kind)
                .build()
                .map_err(build_error)
        };
        let created = self
            .client
            .create_table()
            .table_name(&self.table)
            .billing_mode(BillingMode::PayPerRequest)
            .attribute_definitions(attribute("cluster_id")?)
            .attribute_definitions(attribute("item")?)
            .key_schema(key("cluster_id", KeyType::Hash)?)
            .key_schema(key("item", KeyType::Range)?)
            .send()
            .await;
        match created {
            Ok(_) => {}
            Err(error) if error.code() == Some("ResourceInUseException") => {}
            Err(error) => return Err(self.read_error(&error)),
        }
        let give_up = self.clock.elapsed() + PATIENCE;
        loop {
            let table = self.client.describe_table().table_name(&self.table).send().await;
            match table {
                Ok(table)
                    if table.table().and_then(|table| table.table_status()) == Some(&TableStatus::Active) =>
                {
                    break;
                }
                Ok(_) => {}
                Err(error) if is_under_way(&error) => {}
                Err(error) => return Err(self.read_error(&error)),
            }
            self.wait(give_up, "does not become active").await?;
        }
        self.enable_time_to_live(give_up).await
    }

    /// Has items deleted by themselves some time after they lapse.
    async fn enable_time_to_live(&self, give_up: Duration) -> Result<(), StoreError> {
        let wanted = TimeToLiveSpecification::builder()
            .enabled(true)
            .attribute_name("expires_at")
            .build()
            .map_err(build_error)?;
        while !self.has_time_to_live().await? {
            let enabled = self
                .client
                .update_time_to_live()
                .table_name(&self.table)
                .time_to_live_specification(wanted.clone())
                .send()
                .await;
            match enabled {
                Ok(_) => break,
                // Another coordinator that starts at the same moment was first, which is seen at the next look.
                Err(error) if is_under_way(&error) => {}
                Err(error) => return Err(self.read_error(&error)),
            }
            self.wait(give_up, "does not take a time to live").await?;
        }
        Ok(())
    }

    async fn wait(&self, give_up: Duration, trouble: &str) -> Result<(), StoreError> {
        if self.clock.elapsed() >= give_up {
            let trouble = format!("table {} {trouble}", self.table);
            return Err(StoreError::Unavailable(trouble));
        }
        self.clock.sleep(PERIOD).await;
        Ok(())
    }

    async fn has_time_to_live(&self) -> Result<bool, StoreError> {
        let present = self
            .client
            .describe_time_to_live()
            .table_name(&self.table)
            .send()
            .await;
        let present = present.map_err(|error| self.read_error(&error))?;
        let name = present
            .time_to_live_description()
            .and_then(|description| description.attribute_name());
        Ok(name == Some("expires_at"))
    }
}

fn is_under_way(error: &impl ProvideErrorMetadata) -> bool {
    error.code().is_some_and(|code| UNDER_WAY.contains(&code))
}
