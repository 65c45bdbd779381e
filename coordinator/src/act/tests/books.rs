//! Journal and side effects in the order that whoever takes over relies on.

use super::*;

#[tokio::test]
async fn machines_that_do_not_join_are_terminated_after_that_is_journaled() {
    for crash in 1..20 {
        let mut stage = Stage::new();
        *stage.world.never_boots.lock().unwrap() = true;
        let leader = stage.leader().await;
        stage.submit(&leader, &scale_up()).await.unwrap();
        *stage.world.crash_at.lock().unwrap() = Some(crash);
        assert!(!stage.play(&leader).await, "nothing was terminated");
        if stage.world.count("terminate") > 0 {
            assert!(stage.operations().await[0].launch().unwrap().given_up);
            return;
        }
    }
    panic!("nothing was terminated");
}
