//! The market on AWS: types, zones and spot prices as EC2 tells them, on-demand prices from AWS's price list.
//!
//! Types are asked for by filters, not by name: a name that EC2 does not know then only lacks an answer, where it would
//! have the whole call refused.

#[path = "market_answer.rs"]
mod answer;

use std::time::SystemTime;

use async_trait::async_trait;
use aws_config::{Region, SdkConfig};
use aws_sdk_ec2::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    primitives::DateTime,
    types::{Filter, LocationType},
};
use aws_sdk_pricing::types::{Filter as Term, FilterType};
use smartscale_planner::{
    model::{InstanceType, Zone},
    policy::{Nominal, Undescribed},
};

use super::failure::words;
use crate::observe::market::{Answer, MarketError, MarketSource, SpotQuote};

/// Names of one call. EC2 takes 200 values for a filter.
const MOST_NAMES: usize = 100;
/// Entries of one page.
const PAGE: i32 = 100;
/// Spot prices of one page.
const SPOT_PAGE: i32 = 1_000;
/// An answer of more pages has no end: more than all types of EC2 in all zones.
const MOST_PAGES: usize = 200;
/// Up to so many types the price list is asked for each by itself, beyond that for all of the region.
const FEW: usize = 20;
/// The price list of all regions is served in few of them, this one among them:
/// <https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html>.
const PRICE_LIST_REGION: &str = "us-east-1";
/// What a Linux machine costs by the hour, whichever of the two names history has it under.
const PRODUCTS: [&str; 2] = ["Linux/UNIX", "Linux/UNIX (Amazon VPC)"];

/// AWS as a market.
#[derive(Debug, Clone)]
pub struct AwsMarket {
    ec2: aws_sdk_ec2::Client,
    pricing: aws_sdk_pricing::Client,
    region: Option<String>,
}

impl AwsMarket {
    /// The market of the configuration's region. Sends nothing yet.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        let list = aws_sdk_pricing::config::Builder::from(config)
            .region(Region::new(PRICE_LIST_REGION))
            .build();
        Self {
            ec2: aws_sdk_ec2::Client::new(config),
            pricing: aws_sdk_pricing::Client::from_conf(list),
            region: config.region().map(ToString::to_string),
        }
    }
}

fn failed<E>(error: &SdkError<E, HttpResponse>) -> MarketError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    MarketError(words(error))
}

/// A filter for any of these.
fn any(name: &str, values: impl IntoIterator<Item = impl AsRef<str>>) -> Filter {
    let values = values.into_iter().map(|value| value.as_ref().to_owned());
    Filter::builder()
        .name(name)
        .set_values(Some(values.collect()))
        .build()
}

/// The names, as many as one call takes at a time.
fn batches(wanted: &Undescribed) -> impl Iterator<Item = Filter> {
    let names: Vec<&str> = wanted.types.iter().map(InstanceType::as_str).collect();
    let filters: Vec<Filter> = names
        .chunks(MOST_NAMES)
        .map(|names| any("instance-type", names))
        .collect();
    filters.into_iter()
}

/// Takes up all pages of an answer.
macro_rules! pages {
    ($call:expr, |$page:ident| $take:block) => {{
        let mut pages = $call.into_paginator().send();
        let mut number = 0;
        while let Some(page) = pages.next().await {
            let $page = page.map_err(|error| failed(&error))?;
            number += 1;
            if number > MOST_PAGES {
                return Err(MarketError(format!(
                    "the answer has more than {MOST_PAGES} pages"
                )));
            }
            $take
        }
    }};
}

#[async_trait]
impl MarketSource for AwsMarket {
    async fn types(&self, wanted: &Undescribed) -> Result<Answer<(InstanceType, Nominal)>, MarketError> {
        let mut answer = Answer::default();
        for names in batches(wanted) {
            let call = self
                .ec2
                .describe_instance_types()
                .filters(names)
                .max_results(PAGE);
            pages!(call, |page| {
                for info in page.instance_types() {
                    answer.take(answer::nominal(info));
                }
            });
        }
        Ok(answer)
    }

    async fn zones(&self, wanted: &Undescribed) -> Result<Answer<(InstanceType, Zone)>, MarketError> {
        let mut answer = Answer::default();
        for names in batches(wanted) {
            let call = self
                .ec2
                .describe_instance_type_offerings()
                .location_type(LocationType::AvailabilityZone)
                .filters(names)
                .filters(any("location", wanted.zones.iter().map(Zone::as_str)))
                .max_results(PAGE);
            pages!(call, |page| {
                for offering in page.instance_type_offerings() {
                    answer.take(answer::offered(offering));
                }
            });
        }
        Ok(answer)
    }

    async fn spot_prices(&self, wanted: &Undescribed) -> Result<Answer<SpotQuote>, MarketError> {
        let mut answer = Answer::default();
        // "To view the current prices, set the start time to now": the API reference.
        let now = DateTime::from(SystemTime::now());
        for names in batches(wanted) {
            let call = self
                .ec2
                .describe_spot_price_history()
                .set_product_descriptions(Some(PRODUCTS.map(str::to_owned).into()))
                .filters(names)
                .filters(any("availability-zone", wanted.zones.iter().map(Zone::as_str)))
                .start_time(now)
                .max_results(SPOT_PAGE);
            pages!(call, |page| {
                for price in page.spot_price_history() {
                    if let Some(quote) = answer::spot(price) {
                        answer.take(quote);
                    }
                }
            });
        }
        Ok(answer)
    }

    async fn on_demand_prices(
        &self,
        wanted: &Undescribed,
    ) -> Result<Answer<(InstanceType, f64)>, MarketError> {
        let region = self.region.as_deref();
        let region = region.ok_or_else(|| MarketError("no AWS region is known".to_owned()))?;
        let names: Vec<Option<&str>> = if wanted.types.len() <= FEW {
            wanted.types.iter().map(|name| Some(name.as_str())).collect()
        } else {
            vec![None]
        };
        let mut answer = Answer::default();
        for name in names {
            let call = self
                .pricing
                .get_products()
                .service_code("AmazonEC2")
                .set_filters(Some(terms(region, name)?))
                .max_results(PAGE);
            pages!(call, |page| {
                for product in page.price_list() {
                    answer.take(answer::on_demand(product));
                }
            });
        }
        Ok(answer)
    }
}

/// What tells the one price that is meant from those of other systems, licences and tenancies: as Karpenter asks.
fn terms(region: &str, name: Option<&str>) -> Result<Vec<Term>, MarketError> {
    let name = name.map(|name| ("instanceType", name));
    [
        ("regionCode", region),
        ("operatingSystem", "Linux"),
        ("preInstalledSw", "NA"),
        ("tenancy", "Shared"),
        ("capacitystatus", "Used"),
        ("marketoption", "OnDemand"),
    ]
    .into_iter()
    .chain(name)
    .map(|(field, value)| {
        let term = Term::builder().r#type(FilterType::TermMatch);
        let term = term.field(field).value(value).build();
        term.map_err(|error| MarketError(error.to_string()))
    })
    .collect()
}
