//! `make load`: the load test of `docs/load-test.md`. Puts each profile on a site of its own, prints the figures, and draws
//! `load-PROFILE.svg` in the folder that it is given.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use smartscale_tests::load::{Plan, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, seconds, peak, profiles @ ..] = arguments.as_slice() else {
        bail!("usage: load FOLDER SECONDS PEAK PROFILE…   (PROFILE: daily or spike)");
    };
    if profiles.is_empty() {
        bail!("no profile: daily, spike");
    }
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let length = Duration::from_secs(seconds.parse().context("SECONDS: a whole number")?);
    let peak = peak.parse().context("PEAK: requests a second, a whole number")?;
    for profile in profiles {
        let plan = Plan {
            profile: profile.clone(),
            length,
            peak,
        };
        eprintln!("load: {profile}, {seconds} s …");
        let report = run(&plan).await.with_context(|| format!("profile {profile}"))?;
        let picture = folder.join(format!("load-{profile}.svg"));
        report.draw(&picture)?;
        println!("{report}");
        eprintln!("load: {}", picture.display());
    }
    Ok(())
}
