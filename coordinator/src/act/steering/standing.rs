//! Whose the deletion cost of a pod is, and what may be done about it.
//!
//! Beside each cost that we write stands what we wrote ([`keys::STEERED`](smartscale_planner::model::keys::STEERED)), so that a
//! next leader knows it by the pod alone. A cost without our mark, or another one than the mark says, is somebody else's.

/// How the deletion cost of a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has said anything.
    Free,
    /// We said this.
    Ours(i32),
    /// Somebody else said something, or took away what we said.
    Theirs {
        /// Our mark is still there.
        is_marked: bool,
    },
}

/// What is to be done about the deletion cost of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Cost and mark go.
    TakeBack,
    /// The mark goes; the cost is somebody else's.
    Forget,
    /// Cost and mark become this.
    Say(i32),
}

impl Standing {
    /// How it stands by the cost and the mark that are written.
    #[must_use]
    pub fn of(cost: Option<&str>, mark: Option<&str>) -> Self {
        let ours = mark.filter(|_| cost == mark).and_then(|mark| mark.parse().ok());
        match (cost, mark) {
            (None, None) => Self::Free,
            _ => ours.map_or(
                Self::Theirs {
                    is_marked: mark.is_some(),
                },
                Self::Ours,
            ),
        }
    }

    /// What makes of it what is wished, `None` being that we say nothing; `None`: nothing may or needs to be done.
    #[must_use]
    pub fn change(self, wish: Option<i32>) -> Option<Change> {
        match (self, wish) {
            (Self::Free, Some(cost)) => Some(Change::Say(cost)),
            (Self::Ours(said), Some(cost)) => (said != cost).then_some(Change::Say(cost)),
            (Self::Ours(_), None) => Some(Change::TakeBack),
            (Self::Theirs { is_marked: true }, None) => Some(Change::Forget),
            (Self::Free, None) | (Self::Theirs { .. }, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_ours_only_while_our_mark_says_the_same() {
        for (cost, mark, standing) in [
            (None, None, Standing::Free),
            (Some("-90"), Some("-90"), Standing::Ours(-90)),
            (Some("-90"), None, Standing::Theirs { is_marked: false }),
            (Some("7"), Some("-90"), Standing::Theirs { is_marked: true }),
            (None, Some("-90"), Standing::Theirs { is_marked: true }),
            (Some("low"), Some("low"), Standing::Theirs { is_marked: true }),
        ] {
            assert_eq!(Standing::of(cost, mark), standing, "{cost:?} {mark:?}");
        }
    }

    #[test]
    fn what_somebody_else_said_is_never_changed_and_our_mark_beside_it_goes_once_nothing_is_wished() {
        let (marked, unmarked) = (
            Standing::Theirs { is_marked: true },
            Standing::Theirs { is_marked: false },
        );
        assert_eq!(marked.change(Some(-90)), None);
        assert_eq!(unmarked.change(Some(-90)), None);
        assert_eq!(marked.change(None), Some(Change::Forget));
        assert_eq!(unmarked.change(None), None);
    }

    #[test]
    fn what_is_ours_is_changed_only_where_it_differs() {
        assert_eq!(Standing::Free.change(Some(-90)), Some(Change::Say(-90)));
        assert_eq!(Standing::Free.change(None), None);
        assert_eq!(Standing::Ours(-90).change(Some(-90)), None);
        assert_eq!(Standing::Ours(-90).change(Some(-85)), Some(Change::Say(-85)));
        assert_eq!(Standing::Ours(-90).change(None), Some(Change::TakeBack));
    }
}
