//! The channels by which people and programs are told, made of the configuration, and how each is looked at.

use std::{path::Path, sync::Arc};

use smartscale_coordinator::{
    aws::{cloudwatch, logs::CloudWatchLogs, queue::SqsQueue, sns::Sns},
    check::{
        Check,
        channels::{Channel, ChannelCheck, Door},
        files::{FileCheck, Wanted},
    },
    config::{Bounds, Config},
    tell::{
        Manners, Messenger, Metrics, Sink,
        decision_log::{self, Carrier, Feed},
        post::{BadChannel, Slack, SlackDoor, Target, Webhook},
    },
};
use smartscale_planner::model::ClusterId;
use smartscale_proto::time::SharedClock;

/// A sink for each channel of `[notify]`.
///
/// # Errors
/// [`BadChannel`] names the key of a file that cannot be used.
pub(super) fn sinks(
    config: &Config,
    sdk: &aws_config::SdkConfig,
    cluster: &ClusterId,
    clock: &SharedClock,
) -> Result<Vec<Sink>, BadChannel> {
    let notify = &config.notify;
    let sink = |messenger: Arc<dyn Messenger>, bounds: &Bounds| {
        let manners = Manners {
            cluster: cluster.to_string(),
            every: bounds.every,
            most_per_minute: bounds.most_per_minute,
            quiet: notify.quiet.clone(),
        };
        Sink::for_messages(messenger, manners, bounds.least)
    };
    let mut sinks = Vec::new();
    if let Some(sns) = &notify.sns {
        sinks.push(sink(
            Arc::new(Sns::new(sdk, sns.topic.clone(), sns.format)),
            &sns.bounds,
        ));
    }
    if let Some(slack) = &notify.slack {
        let messenger = Slack::new(slack.door.clone(), slack.ca_file.as_deref(), Arc::clone(clock))?;
        sinks.push(sink(Arc::new(messenger), &slack.bounds));
    }
    if let Some(webhook) = &notify.webhook {
        let messenger = Webhook::new(
            webhook.target.clone(),
            webhook.bearer_token_file.clone(),
            webhook.ca_file.as_deref(),
            Arc::clone(clock),
        )?;
        sinks.push(sink(Arc::new(messenger), &webhook.bounds));
    }
    Ok(sinks)
}

/// The log of decisions, and who carries them there; `None`: there is none.
pub(super) fn log(
    config: &Config,
    sdk: &aws_config::SdkConfig,
    cluster: &ClusterId,
    metrics: &Metrics,
    clock: &SharedClock,
) -> Option<(Arc<Feed>, Carrier)> {
    let stream = Arc::new(log_stream(config, sdk, cluster, config.log_group.as_ref()?));
    let (metrics, clock) = (metrics.clone(), Arc::clone(clock));
    Some(decision_log::to(
        stream,
        cluster.to_string(),
        config.name.clone(),
        metrics,
        clock,
    ))
}

fn log_stream(
    config: &Config,
    sdk: &aws_config::SdkConfig,
    cluster: &ClusterId,
    group: &str,
) -> CloudWatchLogs {
    CloudWatchLogs::new(sdk, group.to_owned(), cluster, &config.name)
}

/// Whether each channel, and the queue of notices, can be reached; nobody is told and nothing is taken.
pub(super) fn checks(
    config: &Config,
    sdk: &aws_config::SdkConfig,
    cluster: &ClusterId,
    clock: &SharedClock,
) -> Vec<Arc<dyn Check>> {
    let mut checks: Vec<Arc<dyn Check>> = Vec::new();
    let mut add = |area: &'static str, channel: Arc<dyn Channel>, remedy: &'static str| {
        checks.push(Arc::new(ChannelCheck {
            area,
            channel,
            remedy,
        }));
    };
    let notify = &config.notify;
    if let Some(sns) = &notify.sns {
        let topic = Arc::new(Sns::new(sdk, sns.topic.clone(), sns.format));
        add(
            "sns",
            topic,
            "look at notify.sns.topic, at its region, and at the statement TellOwnTopic of packaging/iam",
        );
    }
    if let Some(url) = &config.notices_queue {
        let queue = Arc::new(SqsQueue::new(sdk, url.clone()));
        add(
            "queue",
            queue,
            "look at notices.queue_url, at its region, and at the statement HearOwnQueue of packaging/iam",
        );
    }
    if config.cloudwatch.is_some() {
        let door = Door::at(cloudwatch::endpoint(sdk), None, clock);
        add(
            "cloudwatch",
            Arc::new(door),
            "look whether the way there is open (aws.region, routes, a VPC endpoint)",
        );
    }
    if let Some(group) = &config.log_group {
        let stream = log_stream(config, sdk, cluster, group);
        add(
            "cloudwatch-logs",
            Arc::new(stream),
            "look at cloudwatch.log_group, at its region, and at the statement LogOwnDecisions of packaging/iam",
        );
    }
    if let Some(slack) = &notify.slack {
        let door = Door::at(slack.door.address(), slack.ca_file.as_deref(), clock);
        add(
            "slack",
            Arc::new(door),
            "look whether the way there is open (DNS, routes, notify.slack.ca_file)",
        );
    }
    if let Some(webhook) = &notify.webhook {
        let door = Door::at(webhook.target.address(), webhook.ca_file.as_deref(), clock);
        add(
            "webhook",
            Arc::new(door),
            "look whether the way there is open (DNS, routes, notify.webhook.ca_file)",
        );
    }
    checks.extend(secrets(config));
    checks
}

/// The files with the channels' secrets.
fn secrets(config: &Config) -> Vec<Arc<dyn Check>> {
    let mut files: Vec<(&'static str, &Path)> = Vec::new();
    match config.notify.slack.as_ref().map(|slack| &slack.door) {
        Some(SlackDoor::Webhook(path)) => files.push(("notify.slack.webhook_url_file", path)),
        Some(SlackDoor::Bot { token_file, .. }) => files.push(("notify.slack.token_file", token_file)),
        None => {}
    }
    if let Some(webhook) = &config.notify.webhook {
        if let Target::File(path) = &webhook.target {
            files.push(("notify.webhook.url_file", path));
        }
        let token = webhook.bearer_token_file.as_deref();
        files.extend(token.map(|path| ("notify.webhook.bearer_token_file", path)));
    }
    let check = |(key, path): (&'static str, &Path)| {
        let check: Arc<dyn Check> = Arc::new(FileCheck {
            key,
            path: path.to_owned(),
            wanted: Wanted::Secret,
        });
        check
    };
    files.into_iter().map(check).collect()
}
