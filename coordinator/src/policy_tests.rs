#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use std::sync::Mutex;

use smartscale_proto::time::SystemClock;

use super::*;
use crate::tell::Tell;

fn policy(cluster: &str, most: u32) -> String {
    format!(
        "[cluster]\nid = \"{cluster}\"\n[limits]\nmax_nodes = {most}\n[[pool]]\nname = \"workers\"\nzones = [\"us-east-1a\"]\n\
         instance_types = [\"t3.small\"]\n"
    )
}

fn offer(text: &str) -> Offer {
    Offer {
        text: Ok(text.to_owned()),
        uid: Some("u1".to_owned()),
    }
}

/// What was told: the state and the sentence.
#[derive(Default)]
struct Told(Mutex<Vec<(String, String)>>);

impl Tell for Told {
    fn tell(&self, happening: Happening) {
        let Event::Policy { state, uid, .. } = happening.event else {
            unreachable!("nothing else is told here")
        };
        assert_eq!(uid.as_deref(), Some("u1"));
        self.0.lock().unwrap().push((state, happening.message));
    }
}

/// A keeper of a ConfigMap's policy, running.
struct Kept {
    offers: watch::Sender<Option<Offer>>,
    in_force: watch::Receiver<PolicyInForce>,
    told: Arc<Told>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Kept {
    fn of(text: &str) -> Self {
        let (first, _) = offer(text).judge(None).unwrap();
        let (publish, in_force) = watch::channel(first);
        let (offers, offered) = watch::channel(None);
        let told = Arc::new(Told::default());
        let stop = CancellationToken::new();
        let keeper = Keeper {
            origin: Origin::ConfigMap("kube-system/smartscale-policy".parse().unwrap()),
            offers: offered,
            publish,
            tell: Arc::<Told>::clone(&told),
            clock: Arc::new(SystemClock),
        };
        let running = tokio::spawn(keeper.run(stop.clone()));
        Self {
            offers,
            in_force,
            told,
            stop,
            running,
        }
    }

    /// Offers one after the other; `then` tells when the keeper has judged the last of them.
    async fn offered(&self, offers: &[Offer]) {
        for offer in offers {
            self.offers.send_replace(Some(offer.clone()));
            // One thread: the keeper runs while this waits, up to where it waits itself.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn most(&self) -> u32 {
        self.in_force.borrow().policy.limits.max_nodes
    }

    fn told(&self) -> Vec<(String, String)> {
        self.told.0.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_sound_policy_comes_into_force_and_is_told() {
    let kept = Kept::of(&policy("k3s", 10));
    kept.offered(&[offer(&policy("k3s", 20))]).await;
    assert_eq!(kept.most(), 20);
    assert_eq!(
        kept.told(),
        [(
            "in_force".to_owned(),
            "the policy of ConfigMap kube-system/smartscale-policy is in force".to_owned()
        )]
    );
    kept.offered(&[offer(&policy("k3s", 20))]).await;
    assert_eq!(kept.told().len(), 1, "the same again is no news");
}

#[tokio::test]
async fn a_policy_that_does_not_hold_is_refused_with_its_key_and_the_last_good_one_stays() {
    let kept = Kept::of(&policy("k3s", 10));
    let bad = policy("k3s", 20).replace("max_nodes", "max_node");
    kept.offered(&[offer(&bad), offer(&bad)]).await;
    assert_eq!(kept.most(), 10);
    let told = kept.told();
    assert_eq!(told.len(), 1, "told once: {told:?}");
    assert_eq!(told[0].0, "refused");
    assert!(told[0].1.contains("limits.max_node"), "{told:?}");

    kept.offered(&[offer(&policy("k3s", 10))]).await;
    assert_eq!(
        kept.told()[1].0,
        "in_force",
        "that it was set right is told as well"
    );
}

#[tokio::test]
async fn a_policy_of_another_cluster_is_refused() {
    let kept = Kept::of(&policy("k3s", 10));
    kept.offered(&[offer(&policy("other", 20))]).await;
    assert_eq!(kept.most(), 10);
    assert!(kept.told()[0].1.contains("cluster other"), "{:?}", kept.told());
}

#[tokio::test]
async fn a_policy_that_is_gone_stays_in_force_and_is_told() {
    let kept = Kept::of(&policy("k3s", 10));
    let gone = Offer {
        text: Err("there is no such ConfigMap".to_owned()),
        uid: Some("u1".to_owned()),
    };
    kept.offered(&[gone]).await;
    assert_eq!(kept.most(), 10);
    assert_eq!(kept.told()[0].0, "refused");
    assert!(
        kept.told()[0].1.ends_with("there is no such ConfigMap"),
        "{:?}",
        kept.told()
    );
}

#[tokio::test]
async fn a_keeper_ends_when_told_to_and_not_when_nobody_offers_any_more() {
    let kept = Kept::of(&policy("k3s", 10));
    drop(kept.offers);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!kept.running.is_finished());
    kept.stop.cancel();
    kept.running.await.unwrap();
}

#[test]
fn a_config_map_is_named_by_namespace_and_name_and_nothing_else() {
    let name: ConfigMapName = "kube-system/smartscale-policy".parse().unwrap();
    assert_eq!(name.to_string(), "kube-system/smartscale-policy");
    for bad in [
        "smartscale-policy",
        "/x",
        "x/",
        "a/b/c",
        "kube system/x",
        "kube-system/../secrets",
        "kube-system/x?watch=1",
        "a.b/x",
        "Kube/x",
        "-a/x",
    ] {
        assert!(bad.parse::<ConfigMapName>().is_err(), "{bad}");
    }
}
