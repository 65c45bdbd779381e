//! Compiles the contract. `protox` reads the protos in Rust, so that no protoc has to be installed.
use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let files = ["enrolment", "agent", "admin", "people", "check"]
        .map(|name| root.join("smartscale/v1").join(format!("{name}.proto")));
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let descriptors = protox::compile(&files, [&root])?;
    let descriptor_path = PathBuf::from(env::var("OUT_DIR")?).join("smartscale.v1.bin");
    std::fs::write(&descriptor_path, prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
