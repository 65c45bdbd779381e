//! `make rig`: brings the real servers up for a person, prints the environment to use them, ends them with Ctrl-C.

use anyhow::Context as _;
use smartscale_tests::rig::{Folder, Stack};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = Folder::new("rig")?;
    eprintln!("rig: starting in {} …", folder.path().display());
    let stack = Stack::start(&folder).await?;
    for (index, file) in ["coordinator/coordinator-a.toml", "coordinator/coordinator-b.toml"]
        .iter()
        .enumerate()
    {
        folder.write(file, stack.coordinator_config(index))?;
    }
    let environment: String = stack
        .environment()
        .iter()
        .map(|(name, value)| format!("export {name}='{value}'\n"))
        .collect();
    let file = folder.write("environment", &environment)?;
    print!("{environment}");
    println!();
    println!("# for another terminal:   source {}", file.display());
    println!(
        "# coordinators' folder:   {}   (coordinator-a.toml, coordinator-b.toml)",
        stack.home.display()
    );
    println!("#   it wants ca.crt and ca.key (smartscale-coordinator init) and policy.toml;");
    println!(
        "#   then: smartscale-coordinator --config {}/coordinator-a.toml",
        stack.home.display()
    );
    println!("# smartscale:             --endpoint {}", stack.doors[0]);
    println!("# Prometheus:             {}", stack.prometheus.url());
    println!("# logs:                   {}/logs", folder.path().display());
    println!(
        "# an instance that EC2 launches from template {} boots a real agent",
        stack.world.launch_template_name
    );
    println!("# Ctrl-C ends everything and removes the folder (SMARTSCALE_RIG_KEEP=1 keeps it)");
    tokio::signal::ctrl_c().await.context("wait for Ctrl-C")?;
    eprintln!("rig: ending");
    Ok(())
}
