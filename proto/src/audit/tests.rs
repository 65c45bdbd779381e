#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
use jiff::SignedDuration;
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SigningKey as _};

use super::{
    verify::{Checker, Finding, Report},
    *,
};

const KEPT: std::time::Duration = std::time::Duration::from_secs(90 * 24 * 3600);

fn start() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn deed(at: Timestamp, call: &str) -> Deed {
    Deed {
        time: at,
        who: "spiffe://smartscale/cluster/demo/admin/operator/jo".to_owned(),
        call: call.to_owned(),
        arguments: "node=\"a\"".to_owned(),
        outcome: "ok".to_owned(),
    }
}

/// Records a minute apart, with the head that is not sealed yet.
fn chain(length: u64) -> (Vec<Entry>, Head) {
    let mut head = Head::empty("a");
    let entries: Vec<Entry> = (0..length)
        .map(|n| {
            let time = start() + SignedDuration::from_mins(n.cast_signed());
            let entry = Entry::after(&head, deed(time, &format!("call-{n}")));
            head = Head::at(&entry);
            entry
        })
        .collect();
    (entries, head)
}

fn at(entries: &[Entry]) -> Vec<(u64, Entry)> {
    entries
        .iter()
        .map(|entry| (entry.sequence, entry.clone()))
        .collect()
}

fn check(places: &[(u64, Entry)], head: Option<&Head>, sealed: bool, now: Timestamp) -> Report {
    let mut checker = Checker::new("a", now, KEPT, head.cloned(), None);
    for (position, entry) in places {
        checker.entry(*position, entry);
    }
    checker.finish(sealed)
}

fn later() -> Timestamp {
    start() + SignedDuration::from_hours(24)
}

#[test]
fn a_chain_as_it_was_written_is_whole() {
    for length in [0, 1, 2, 50] {
        let (entries, head) = chain(length);
        let report = check(&at(&entries), Some(&head), true, later());
        assert_eq!(report.findings, [], "{length}");
        assert_eq!((report.last, report.hash), (length, head.hash));
    }
}

#[test]
fn a_record_says_the_role_of_its_caller() {
    let head = Head::empty("a");
    assert_eq!(Entry::after(&head, deed(start(), "x")).role, "operator");
    let stranger = Deed {
        who: "127.0.0.1:1".to_owned(),
        ..deed(start(), "x")
    };
    assert_eq!(Entry::after(&head, stranger).role, "");
}

#[test]
fn a_record_reads_the_same_from_the_store_and_from_the_wire() {
    let (entries, mut head) = chain(2);
    head.seal = "00ff".to_owned();
    let text = serde_json::to_string(&entries[1]).unwrap();
    assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entries[1]);
    let wire = v1::AuditEntry::from(&entries[1]);
    assert_eq!(Entry::try_from(wire), Ok(entries[1].clone()));
    assert_eq!(Head::try_from(v1::AuditHead::from(&head)), Ok(head));
}

#[test]
fn a_clock_that_was_set_back_leaves_the_chain_in_order() {
    let (entries, head) = chain(3);
    let next = Entry::after(&head, deed(start() - SignedDuration::from_hours(5), "x"));
    assert_eq!(next.time, head.time);
    let head = Head::at(&next);
    let all = [entries, vec![next]].concat();
    assert_eq!(check(&at(&all), Some(&head), true, later()).findings, []);
}

#[test]
fn a_tail_that_was_cut_off_is_found_by_the_head() {
    let (entries, head) = chain(10);
    let report = check(&at(&entries[..7]), Some(&head), true, later());
    assert_eq!(report.findings, [Finding::Missing(8, 10)]);
    let report = check(&[], Some(&head), true, later());
    assert_eq!(report.findings, [Finding::Missing(1, 10)]);
}

#[test]
fn a_chain_that_was_made_anew_with_its_head_lacks_the_seal() {
    let authority = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let anchor = params.self_signed(&authority).unwrap().der().to_vec();
    let (_, mut head) = chain(3);
    head.seal = hex::encode(authority.sign(&head.signed()).unwrap());
    assert!(head.is_sealed_by([anchor.as_slice()]));
    for change in [
        |head: &mut Head| head.sequence -= 1,
        |head: &mut Head| head.hash.0[0] ^= 1,
        |head: &mut Head| head.coordinator = "b".to_owned(),
        |head: &mut Head| head.time += SignedDuration::from_secs(1),
        |head: &mut Head| head.seal.clear(),
    ] {
        let mut changed = head.clone();
        change(&mut changed);
        assert!(!changed.is_sealed_by([anchor.as_slice()]), "{changed:?}");
    }
    let other = KeyPair::generate().unwrap();
    head.seal = hex::encode(other.sign(&head.signed()).unwrap());
    assert!(!head.is_sealed_by([anchor.as_slice()]));
    let (entries, head) = chain(3);
    let report = check(&at(&entries), Some(&head), false, later());
    assert_eq!(report.findings, [Finding::Seal]);
    let report = check(&at(&entries), None, false, later());
    assert_eq!(report.findings, [Finding::NoHead]);
}

#[test]
fn what_is_older_than_the_retention_may_be_gone_and_nothing_else() {
    let (entries, head) = chain(10);
    // The fifth record has lapsed, the sixth has not.
    let now = entries[4].time + SignedDuration::try_from(KEPT).unwrap();
    assert_eq!(check(&at(&entries[5..]), Some(&head), true, now).findings, []);
    let early = now - SignedDuration::from_hours(2);
    let report = check(&at(&entries[5..]), Some(&head), true, early);
    assert_eq!(report.findings, [Finding::Missing(1, 5)]);
    // All of them have lapsed: the head stays.
    let end = now + SignedDuration::from_hours(24);
    assert_eq!(check(&[], Some(&head), true, end).findings, []);
}

#[test]
fn a_chain_that_was_made_anew_differs_from_what_was_noted() {
    let (entries, head) = chain(10);
    let noted = Some((4, entries[3].hash));
    let mut checker = Checker::new("a", later(), KEPT, Some(head.clone()), noted);
    entries
        .iter()
        .for_each(|entry| checker.entry(entry.sequence, entry));
    assert_eq!(checker.finish(true).findings, []);
    let noted = Some((4, Digest([1; 32])));
    let mut checker = Checker::new("a", later(), KEPT, Some(head), noted);
    entries
        .iter()
        .for_each(|entry| checker.entry(entry.sequence, entry));
    assert_eq!(checker.finish(true).findings, [Finding::Noted(4)]);
}

#[test]
fn records_after_the_head_are_named_once_their_moment_is_over() {
    let (entries, _) = chain(10);
    let head = Head::at(&entries[7]);
    let report = check(&at(&entries), Some(&head), true, later());
    assert_eq!(report.findings, [Finding::Unsealed(9, 10)]);
    let at_once = entries[9].time + SignedDuration::from_secs(5);
    assert_eq!(check(&at(&entries), Some(&head), true, at_once).findings, []);
}

/// What somebody does to the records in the store who has not the authority's key.
#[derive(Debug, Clone)]
enum Tampering {
    Change { at: usize, field: usize, rehash: bool },
    Drop { at: usize, count: usize },
    Swap { one: usize, other: usize },
    Insert { at: usize },
    Replace { at: usize },
}

const LENGTH: u64 = 24;

fn tampering() -> impl Strategy<Value = Tampering> {
    let place = || 0..usize::try_from(LENGTH).unwrap();
    prop_oneof![
        (place(), 0_usize..10, any::<bool>()).prop_map(|(at, field, rehash)| Tampering::Change {
            at,
            field,
            rehash
        }),
        (place(), 1_usize..4).prop_map(|(at, count)| Tampering::Drop { at, count }),
        (place(), place())
            .prop_filter("two places", |(one, other)| one != other)
            .prop_map(|(one, other)| Tampering::Swap { one, other }),
        place().prop_map(|at| Tampering::Insert { at }),
        place().prop_map(|at| Tampering::Replace { at }),
    ]
}

fn change(entry: &mut Entry, field: usize) {
    match field {
        0 => entry.coordinator.push('x'),
        1 => entry.sequence += 1000,
        2 => entry.time += SignedDuration::from_millis(1),
        3 => entry.previous_time = Some(Timestamp::MIN),
        4 => entry.previous.0[31] ^= 1,
        5 => entry.who.push('x'),
        6 => entry.role = "admin".to_owned(),
        7 => entry.call.clear(),
        8 => entry.arguments.insert(0, ' '),
        _ => entry.outcome = "denied".to_owned(),
    }
}

/// Makes the hashes right again from `from` on, as somebody does who knows how they are made.
fn link_again(places: &mut [(u64, Entry)], from: usize) {
    for index in from..places.len() {
        if let Some(before) = index.checked_sub(1) {
            let (previous, time) = (places[before].1.hash, places[before].1.time);
            places[index].1.previous = previous;
            places[index].1.previous_time = Some(time);
        }
        places[index].1.hash = places[index].1.digest();
    }
}

fn tamper(places: &mut Vec<(u64, Entry)>, tampering: &Tampering) -> u64 {
    match *tampering {
        Tampering::Change { at, field, rehash } => {
            change(&mut places[at].1, field);
            if rehash {
                places[at].1.hash = places[at].1.digest();
            }
            at as u64 + 1
        }
        Tampering::Drop { at, count } => {
            let end = (at + count).min(places.len());
            places.drain(at..end);
            at as u64 + 1
        }
        Tampering::Swap { one, other } => {
            let (a, b) = (places[one].1.clone(), places[other].1.clone());
            (places[one].1, places[other].1) = (b, a);
            one.min(other) as u64 + 1
        }
        // Everything behind it moves on, and is numbered and linked again.
        Tampering::Insert { at } => {
            let extra = places[at].1.clone();
            places.insert(at, (0, extra));
            for (index, place) in places.iter_mut().enumerate().skip(at) {
                place.0 = index as u64 + 1;
                place.1.sequence = index as u64 + 1;
            }
            link_again(places, at);
            LENGTH
        }
        Tampering::Replace { at } => {
            places[at].1.who = "somebody else".to_owned();
            link_again(places, at);
            LENGTH
        }
    }
}

fn names(finding: &Finding, place: u64) -> bool {
    match finding {
        Finding::Changed(at)
        | Finding::Unlinked(at)
        | Finding::Foreign(at)
        | Finding::Older(at)
        | Finding::Head(at) => *at == place || *at == place + 1,
        Finding::Missing(from, to) | Finding::Unsealed(from, to) => {
            (*from..=*to).contains(&place) || *from == place + 1
        }
        Finding::Elsewhere { position, .. } => *position == place,
        _ => false,
    }
}

proptest! {
    #[test]
    fn what_was_changed_dropped_swapped_or_inserted_is_found_and_named(tampering in tampering()) {
        let (entries, head) = chain(LENGTH);
        let mut places = at(&entries);
        let place = tamper(&mut places, &tampering);
        let report = check(&places, Some(&head), true, later());
        prop_assert!(
            report.findings.iter().any(|finding| names(finding, place)),
            "place {} {:?}", place, report.findings
        );
    }

    #[test]
    fn no_two_records_have_one_hash(a in ".{0,6}", b in ".{0,6}", cut in 0_usize..7) {
        let text = format!("{a}{b}");
        let cut = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (left, right) = text.split_at(cut);
        let make = |call: &str, arguments: &str| {
            let deed = Deed { call: call.to_owned(), arguments: arguments.to_owned(), ..deed(start(), "") };
            Entry::after(&Head::empty("a"), deed).hash
        };
        prop_assert_eq!(make(&a, &b) == make(left, right), a == left);
    }
}
