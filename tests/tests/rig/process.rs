//! Processes end with their owner.

use std::time::Duration;

use smartscale_tests::rig::process::{Process, Program};
use smartscale_tests::rig::{Folder, wait};

/// Whether a process of this id is there and no zombie.
fn is_alive(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test]
async fn a_dropped_process_takes_its_children_with_it() {
    let folder = Folder::new("process-drop").unwrap();
    let file = folder.path().join("child");
    let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
    let process = Process::spawn(Program::new("parent", "sh").arg("-c").arg(script), &folder).unwrap();
    let child = wait::until("the child's id", Duration::from_secs(10), || async {
        Ok(std::fs::read_to_string(&file)?.trim().parse::<u32>().ok())
    })
    .await
    .unwrap();
    assert!(is_alive(child));
    drop(process);
    wait::until_true("the child's end", Duration::from_secs(10), || async {
        Ok(!is_alive(child))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_process_dies_with_a_test_program_that_is_killed() {
    // This test program again, running only the test below, which starts a process and waits.
    let folder = Folder::new("process-killed").unwrap();
    let file = folder.path().join("grandchild");
    let mut program = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "process::helper_that_waits",
            "--ignored",
            "--nocapture",
        ])
        .env("SMARTSCALE_RIG_GRANDCHILD", &file)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let grandchild = wait::until("the grandchild's id", Duration::from_secs(20), || async {
        Ok(std::fs::read_to_string(&file)?.trim().parse::<u32>().ok())
    })
    .await
    .unwrap();
    assert!(is_alive(grandchild));
    program.kill().unwrap();
    program.wait().unwrap();
    wait::until_true("the grandchild's end", Duration::from_secs(10), || async {
        Ok(!is_alive(grandchild))
    })
    .await
    .unwrap();
}

#[tokio::test]
#[ignore = "run by the test above in a program of its own"]
async fn helper_that_waits() {
    let Some(file) = std::env::var_os("SMARTSCALE_RIG_GRANDCHILD") else {
        return;
    };
    let folder = Folder::new("process-helper").unwrap();
    let process = Process::spawn(Program::new("sleeper", "sleep").arg("1000"), &folder).unwrap();
    // Nobody is left to remove the folder once this program is killed.
    std::fs::remove_dir_all(folder.path()).unwrap();
    let written = std::path::PathBuf::from(file);
    std::fs::write(written.with_extension("part"), process.id().unwrap().to_string()).unwrap();
    std::fs::rename(written.with_extension("part"), written).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_server_that_ends_at_once_is_told_with_its_log() {
    let folder = Folder::new("process-fails").unwrap();
    let attempt = || {
        Ok((
            Program::new("broken", "sh")
                .arg("-c")
                .arg("echo no licence found; exit 3"),
            (),
        ))
    };
    let ready = async |()| Ok(false);
    let error = smartscale_tests::rig::process::start(&folder, Duration::from_secs(20), attempt, ready)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("broken ended before it served") && error.contains("no licence found"),
        "{error}"
    );
    std::fs::remove_dir_all(folder.path()).unwrap();
}
