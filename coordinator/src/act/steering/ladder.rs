//! Which deletion cost the pods of each node are given: the first node the lowest, and none another one than it has without
//! need. Every change is a patch for each pod of the node.
//!
//! ```text
//!   -99 ──── -90 ── -85 ── -80 ── -75 ── -70 ──────────────────── -1
//!    └ room for    └ five nodes, with room between them            └ room for those that come after the first ones are gone
//!      new first ones
//! ```
//! All of them are small: where people have said themselves which pods are to go first, a cost of -100 or less is heeded before
//! ours. Pods without a cost count as 0 and go last.

/// What the first node of a new ladder is given.
const FIRST: i32 = -90;
/// From one node to the next.
const STEP: i32 = 5;
/// Below every cost.
const BELOW: i32 = -100;

/// The costs of nodes, in the order in which they are to be emptied; `present` is what their pods have. They rise strictly, from
/// -99 on, and stay below 0 for up to 18 nodes.
#[must_use]
pub(super) fn costs(present: &[Option<i32>]) -> Vec<i32> {
    kept(present).unwrap_or_else(|| {
        let places = (0i32..).zip(present);
        places.map(|(place, _)| FIRST + STEP * place).collect()
    })
}

/// Those that keep as many of the present ones as their order allows; `None` if there is no room for the others.
fn kept(present: &[Option<i32>]) -> Option<Vec<i32>> {
    let mut costs: Vec<i32> = Vec::with_capacity(present.len());
    for (index, has) in present.iter().enumerate() {
        let last = costs.last().copied();
        let below = last.unwrap_or(BELOW);
        let fits = |cost: &i32| *cost > below && *cost < 0;
        let cost = has.filter(fits).unwrap_or_else(|| {
            let later = present.get(index + 1..).unwrap_or_default();
            match (later.iter().flatten().copied().find(fits), last) {
                // Halfway, so that there is room on both sides for those that come in between later.
                (Some(next), _) => (below + (next - below) / 2).max(below + 1),
                (None, Some(last)) => last + STEP,
                (None, None) => FIRST,
            }
        });
        if cost >= 0 {
            return None;
        }
        costs.push(cost);
    }
    Some(costs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_is_the_lowest_and_all_are_below_a_pod_without_a_cost() {
        assert_eq!(costs(&[None; 5]), [-90, -85, -80, -75, -70]);
        assert_eq!(costs(&[]), Vec::<i32>::new());
    }

    #[test]
    fn when_the_first_has_gone_and_another_comes_last_no_other_is_changed() {
        let left = [Some(-85), Some(-80), Some(-75), Some(-70), None];
        assert_eq!(costs(&left), [-85, -80, -75, -70, -65]);
    }

    #[test]
    fn one_that_comes_first_or_in_between_finds_room_there() {
        assert_eq!(costs(&[None, Some(-90), Some(-85)]), [-95, -90, -85]);
        assert_eq!(costs(&[Some(-90), None, Some(-85)]), [-90, -88, -85]);
    }

    #[test]
    fn one_that_changes_its_place_takes_a_new_cost_and_the_others_keep_theirs() {
        assert_eq!(costs(&[Some(-85), Some(-90), Some(-80)]), [-85, -83, -80]);
    }

    #[test]
    fn a_ladder_that_has_climbed_to_its_end_begins_anew() {
        assert_eq!(costs(&[Some(-5), None]), [-90, -85]);
    }

    proptest! {
        #[test]
        fn costs_rise_strictly_below_zero_and_stay_as_they_are_once_written(
            present in proptest::collection::vec(proptest::option::of(-120..50), 0..6),
        ) {
            let first = costs(&present);
            prop_assert_eq!(first.len(), present.len());
            prop_assert!(first.iter().all(|cost| (-99..0).contains(cost)), "{:?}", first);
            prop_assert!(first.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", first);
            let written: Vec<Option<i32>> = first.iter().copied().map(Some).collect();
            prop_assert_eq!(costs(&written), first);
        }
    }
}
