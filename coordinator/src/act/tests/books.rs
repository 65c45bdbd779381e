//! Journal and side effects in the order that whoever takes over relies on.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A store that writes and does not say so, when it is told to.
struct Silent {
    inner: SharedStore,
    once: Arc<AtomicBool>,
}

#[async_trait]
impl StateStore for Silent {
    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError> {
        self.inner.lease().await
    }
    async fn replace_lease(&self, expected: Option<&str>, next: &LeaseRow) -> Result<bool, StoreError> {
        self.inner.replace_lease(expected, next).await
    }
    async fn commit(
        &self,
        epoch: Epoch,
        writes: &[Write],
        attributes: &Attributes,
    ) -> Result<(), StoreError> {
        self.inner.commit(epoch, writes, attributes).await?;
        if self.once.swap(false, Ordering::SeqCst) {
            return Err(StoreError::Unknown("no answer".into()));
        }
        Ok(())
    }
    async fn append(&self, write: &Write) -> Result<(), StoreError> {
        self.inner.append(write).await
    }
    async fn get(&self, key: &str) -> Result<Option<Item>, StoreError> {
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &str, newest_first: bool, limit: usize) -> Result<Vec<Item>, StoreError> {
        self.inner.list(prefix, newest_first, limit).await
    }
    async fn attributes(&self) -> Result<Attributes, StoreError> {
        self.inner.attributes().await
    }
}

#[tokio::test]
async fn an_operation_whose_journaling_was_not_answered_is_known_in_the_same_term() {
    let mut stage = Stage::new();
    let once = Arc::new(AtomicBool::new(false));
    stage.store = Arc::new(Silent {
        inner: Arc::clone(&stage.store),
        once: Arc::clone(&once),
    });
    let leader = stage.leader().await;
    assert!(leader.begin_term(Epoch(1)).await);
    once.store(true, Ordering::SeqCst);
    assert!(stage.submit(&leader, &scale_up()).await.is_err());
    assert!(stage.play(&leader).await);
    let operations = stage.operations().await;
    assert_eq!(operations.len(), 1);
    assert_eq!(operations[0].phase, Phase::Done);
    assert_eq!(operations[0].takeovers, 0);
}

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
