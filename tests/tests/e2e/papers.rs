//! Papers of any kind, as somebody who stole the authority's key would issue them, and a door to show them at.

use std::time::Duration;

use smartscale_coordinator::serve::authority::vault::NoVault;
use smartscale_coordinator::serve::authority::{Authority, Names};
use smartscale_proto::identity::{Party, Role};
use smartscale_proto::tls::client::{Dialer, Expected};
use smartscale_proto::tls::{Credential, Rotating};
use smartscale_tests::site::Site;
use tonic::transport::Channel;

pub(crate) fn names(cluster: &str) -> Names {
    Names {
        trust: "smartscale".parse().unwrap(),
        cluster: cluster.parse().unwrap(),
    }
}

/// The site's own authority, as somebody who stole its key would have it, with names of that cluster.
pub(crate) async fn authority(site: &Site, cluster: &str) -> Authority {
    let home = &site.stack.home;
    let (certificates, key) = (home.join("ca.crt"), home.join("ca.key"));
    Authority::load(names(cluster), &certificates, &key, &NoVault)
        .await
        .unwrap()
}

pub(crate) fn person(role: Role) -> Party {
    Party::Admin {
        role,
        name: "mallory".parse().unwrap(),
    }
}

pub(crate) fn agent(instance: &str) -> Party {
    Party::Agent {
        instance: instance.parse().unwrap(),
    }
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A connection with these papers; an error is of the handshake.
pub(crate) async fn dial(site: &Site, credential: Credential) -> Result<Channel, String> {
    let expected = Expected {
        trust: "smartscale".parse().unwrap(),
        cluster: "rig".parse().unwrap(),
    };
    Dialer::new(Rotating::new(credential), expected)
        .connect(&site.stack.doors[0].to_string())
        .await
        .map_err(|error| error.to_string())
}
