//! The books: the machines of EC2, the records of the table and the Nodes of the cluster are the same.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use kube::api::ListParams;

use super::{DEADLINE, Site};
use crate::rig::stack::TABLE;
use crate::rig::wait;

/// What the table's keys of node records begin with.
const RECORDS: &str = "node#";

impl Site {
    /// Waits until there are exactly `count` Ready nodes, with as many records and machines, all of the same names, and
    /// no operation is open. Gives the names.
    ///
    /// # Errors
    /// They differ after [`DEADLINE`]; the message has all three.
    pub async fn books(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let ready = self.ready_nodes(count).await?;
        wait::until_true("the books to be right", DEADLINE, || async {
            let nodes = self.nodes().list(&ListParams::default()).await?;
            let nodes: BTreeSet<String> = nodes
                .items
                .into_iter()
                .filter_map(|node| node.metadata.name)
                .collect();
            let machines: BTreeSet<String> = self.instances().await?.into_iter().collect();
            let records = self.records().await?;
            ensure!(
                nodes == machines && machines == records && nodes.len() == count,
                "nodes {nodes:?}, machines {machines:?}, records {records:?}"
            );
            let open = self.ask(&["operations", "--open"]).await?;
            ensure!(
                open["operations"].as_array().is_none_or(Vec::is_empty),
                "open: {open:#}"
            );
            Ok(true)
        })
        .await?;
        Ok(ready)
    }

    /// The machines of which the table has a record.
    async fn records(&self) -> anyhow::Result<BTreeSet<String>> {
        let table = self.stack.dynamodb.client().await;
        let mut pages = table
            .query()
            .table_name(TABLE)
            .key_condition_expression("cluster_id = :cluster and begins_with(#item, :records)")
            .expression_attribute_names("#item", "item")
            .expression_attribute_values(":cluster", AttributeValue::S(self.stack.id.clone()))
            .expression_attribute_values(":records", AttributeValue::S(RECORDS.to_owned()))
            .consistent_read(true)
            .into_paginator()
            .items()
            .send();
        let mut records = BTreeSet::new();
        while let Some(item) = pages.next().await {
            let item = item.context("read the node records")?;
            let key = item.get("item").and_then(|key| key.as_s().ok());
            records.extend(key.and_then(|key| key.strip_prefix(RECORDS)).map(str::to_owned));
        }
        Ok(records)
    }
}
