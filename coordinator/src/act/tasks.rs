//! What the executor has under way: at most one step for an operation, and one comparison of the books.

use std::{collections::BTreeSet, future::Future};

use futures_util::{
    StreamExt as _,
    future::{BoxFuture, FutureExt as _},
    stream::FuturesUnordered,
};

use crate::ids::OperationId;

/// What is done once at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// A step of an operation.
    Step(OperationId),
    /// Comparing machines, records and Nodes.
    Books,
}

/// What is under way. It goes on only inside [`one_ends`](Self::one_ends), [`meanwhile`](Self::meanwhile) and
/// [`finish`](Self::finish).
#[derive(Default)]
pub(super) struct Tasks {
    which: BTreeSet<Task>,
    futures: FuturesUnordered<BoxFuture<'static, Task>>,
}

impl Tasks {
    /// Begins a task, unless it is under way.
    pub(super) fn begin(&mut self, task: Task, future: impl Future<Output = ()> + Send + 'static) {
        if self.which.insert(task.clone()) {
            self.futures.push(future.map(|()| task).boxed());
        }
    }

    /// Waits for something else, which may need what a task holds.
    pub(super) async fn meanwhile<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::pin!(other);
        loop {
            tokio::select! {
                biased;
                done = &mut other => return done,
                () = self.one_ends() => {}
            }
        }
    }

    /// Ends when a task has; never while none is under way.
    pub(super) async fn one_ends(&mut self) {
        match self.futures.next().await {
            Some(task) => {
                self.which.remove(&task);
            }
            None => std::future::pending().await,
        }
    }

    /// Waits for everything that is under way.
    pub(super) async fn finish(mut self) {
        while self.futures.next().await.is_some() {}
    }
}
