//! DynamoDB Local: the real engine's rules (conditions, transactions) on one machine. It listens on every address,
//! which nothing can change; it keeps everything in memory and loses it at a restart.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};

use super::process::{Process, Program};
use super::{Folder, aws, cache, port, process};

/// A DynamoDB Local of the test's own.
#[derive(Debug)]
pub struct DynamoDb {
    process: Process,
    address: SocketAddr,
}

impl DynamoDb {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// It is not installed, or does not come up within 60 s.
    pub async fn start(folder: &Folder) -> anyhow::Result<Self> {
        let home = cache::installed("dynamodb")?;
        let attempt = || {
            let address = port::free()?;
            let mut classpath = home.clone().into_os_string();
            classpath.push("/*");
            let mut library = std::ffi::OsString::from("-Djava.library.path=");
            library.push(&home);
            // The collector and the compilers are for long runs of large heaps: this one starts faster and stays small.
            let program = Program::new("dynamodb", "java")
                .arg("-XX:+UseSerialGC")
                .arg("-XX:TieredStopAtLevel=1")
                .arg("-Xmx256m")
                .arg(library)
                .arg("-cp")
                .arg(classpath)
                .arg("com.amazonaws.services.dynamodbv2.local.main.ServerRunner")
                .arg("-inMemory")
                // Otherwise each key has tables of its own.
                .arg("-sharedDb")
                .arg("-disableTelemetry")
                .arg("-port")
                .arg(address.port().to_string())
                .folder(folder.path());
            Ok((program, address))
        };
        let ready = async |address| Ok(client(address).await.list_tables().send().await.is_ok());
        let (process, address) = process::start(folder, Duration::from_secs(60), attempt, ready).await?;
        Ok(Self { process, address })
    }

    /// `http://127.0.0.1:PORT`, for `AWS_ENDPOINT_URL_DYNAMODB`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client with the root key.
    pub async fn client(&self) -> Client {
        client(self.address).await
    }

    /// Creates the coordinator's table, keyed by `cluster_id` and `item`, if it is not there.
    ///
    /// # Errors
    /// DynamoDB refused.
    pub async fn create_table(&self, name: &str) -> anyhow::Result<()> {
        let mut create = self
            .client()
            .await
            .create_table()
            .table_name(name)
            .billing_mode(BillingMode::PayPerRequest);
        for (attribute, kind) in [("cluster_id", KeyType::Hash), ("item", KeyType::Range)] {
            let key = KeySchemaElement::builder()
                .attribute_name(attribute)
                .key_type(kind);
            let text = AttributeDefinition::builder()
                .attribute_name(attribute)
                .attribute_type(ScalarAttributeType::S);
            create = create
                .key_schema(key.build()?)
                .attribute_definitions(text.build()?);
        }
        match create.send().await {
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(CreateTableError::is_resource_in_use_exception) =>
            {
                Ok(())
            }
            created => created.map(drop).context("create the table"),
        }
    }

    /// The process, to pause it.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The process, to kill it; it keeps nothing.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

async fn client(address: SocketAddr) -> Client {
    Client::new(&aws::config(&format!("http://{address}"), &aws::Key::root()).await)
}
