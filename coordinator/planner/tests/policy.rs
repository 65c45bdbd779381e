//! The policy file: its defaults, and every mistake named by its key's path.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use std::time::Duration;

use smartscale_planner::{
    Policy,
    model::{Bytes, Market, MilliCpu, Percent},
    policy::{Budget, BurstableCpu, OnNotice, ScaleDownWhen},
};

const LEAST: &str = "[cluster]\nid = \"demo\"\n[[pool]]\nname = \"workers\"\nzones = [\"us-east-1a\"]\ninstance_types = [\"t3.small\"]\n";

fn path_of_error(text: &str) -> String {
    let error = Policy::from_toml(text).unwrap_err();
    assert!(!error.message.is_empty());
    error.path
}

#[test]
fn what_is_done_at_a_notice_is_one_of_two_words() {
    let of = |line: &str| format!("{LEAST}{line}\n");
    let (policy, _) = Policy::from_toml(&of("rebalance = \"drain\"\nmaintenance = \"ignore\"")).unwrap();
    assert_eq!(
        (policy.pools[0].rebalance, policy.pools[0].maintenance),
        (OnNotice::Drain, OnNotice::Ignore)
    );
    assert_eq!(path_of_error(&of("rebalance = \"replace\"")), "pool[0].rebalance");
    assert_eq!(path_of_error(&of("maintenance = true")), "pool[0].maintenance");
    assert_eq!(
        path_of_error(&of("maintenance_lead = \"a day\"")),
        "pool[0].maintenance_lead"
    );
}

#[test]
fn the_least_policy_has_every_default() {
    let (policy, warnings) = Policy::from_toml(LEAST).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!((policy.limits.min_nodes, policy.limits.max_nodes), (2, 10));
    let up = &policy.scale_up;
    assert_eq!(
        (up.cpu_percent, up.memory_percent, up.sustained_readings),
        (Percent(70.0), Percent(75.0), 2)
    );
    assert_eq!(
        (up.cooldown, up.reading_interval),
        (Duration::from_secs(300), Duration::from_secs(60))
    );
    assert_eq!((up.think, up.max_step), (Duration::from_millis(200), 0));
    let down = &policy.scale_down;
    assert_eq!((down.when, down.steer), (ScaleDownWhen::Thresholds, false));
    assert_eq!(
        (down.cpu_percent, down.memory_percent),
        (Percent(30.0), Percent(50.0))
    );
    assert_eq!(
        (down.sustained, down.cooldown),
        (Duration::from_secs(600), Duration::from_secs(600))
    );
    assert_eq!(
        (down.min_age, down.budget),
        (Duration::from_secs(300), Budget::Share(Percent(100.0)))
    );
    assert_eq!((down.max_parallel_drains, down.max_parallel_empty), (1, 10));
    assert!(down.strictness.kube_system_blocks && down.strictness.local_storage_blocks);
    let pool = &policy.pools[0];
    assert_eq!((pool.min_nodes, pool.max_nodes, pool.max_pods), (0, 10, 110));
    assert_eq!(
        (pool.markets.as_slice(), pool.on_demand_base),
        ([Market::OnDemand].as_slice(), 0)
    );
    assert_eq!(pool.burstable_cpu, BurstableCpu::Nominal);
    assert_eq!(
        (pool.rebalance, pool.maintenance, pool.maintenance_lead),
        (OnNotice::Ignore, OnNotice::Drain, Duration::from_secs(86_400))
    );
    assert_eq!(pool.startup_taints[0].as_ref(), "smartscale.io/unverified");
}

#[test]
fn every_mistake_is_named_by_its_path() {
    let top = |table: &str| format!("{table}\n{LEAST}");
    let pool = |line: &str| format!("{LEAST}{line}\n");
    let freeze = |lines: &str| format!("{LEAST}[[freeze]]\nduration = \"1h\"\n{lines}\n");
    let spec = |line: &str| {
        format!(
            "{LEAST}[[instance_type]]\nname = \"x\"\ncpu = \"2\"\nmemory = \"2Gi\"\non_demand_price = 1.0\n{line}\n"
        )
    };
    let cases = [
        (LEAST.replace("[cluster]\nid = \"demo\"\n", ""), "cluster"),
        (
            top("[limits]\nmax_usd_per_hour = -1.0"),
            "limits.max_usd_per_hour",
        ),
        (top("[[freeze]]\nduration = \"1h\""), "freeze[0].cron"),
        (freeze("cron = \"0 18 * * FRY\""), "freeze[0].cron"),
        (freeze("cron = \"0 18 * *\""), "freeze[0].cron"),
        (freeze("cron = \"0 18 * * FRI UTC\""), "freeze[0].cron"),
        (freeze("cron = \"0 0 30 2 *\""), "freeze[0].cron"),
        (
            freeze("cron = \"0 0 * * *\"\ntime_zone = \"Europe/Bärlin\""),
            "freeze[0].time_zone",
        ),
        (freeze("cron = \"0 0 * * *\"\nstops = []"), "freeze[0].stops"),
        (
            freeze("cron = \"0 0 * * *\"\nstops = [\"all\"]"),
            "freeze[0].stops[0]",
        ),
        (
            freeze("cron = \"0 0 * * *\"").replace("1h", "0s"),
            "freeze[0].duration",
        ),
        (
            freeze("cron = \"0 0 * * *\"").replace("1h", "9000h"),
            "freeze[0].duration",
        ),
        (LEAST.replace("demo", ""), "cluster.id"),
        ("[cluster]\nid = \"a\"\n".to_owned(), "pool"),
        (top("[limits]\nmin_node = 2"), "limits.min_node"),
        (top("[limit]\nmin_nodes = 2"), "limit"),
        (top("[limits]\nmin_nodes = 11"), "limits.min_nodes"),
        (top("[limits]\nmin_nodes = -1"), "limits.min_nodes"),
        (
            top("[limits]\nmin_nodes = 4000000000\nmax_nodes = 4100000000"),
            "limits.min_nodes",
        ),
        (top("[scale_up]\ncpu_percent = 101.0"), "scale_up.cpu_percent"),
        (top("[scale_up]\nmemory_percent = nan"), "scale_up.memory_percent"),
        (top("[scale_up]\ncpu_percent = 30.0"), "scale_down.cpu_percent"),
        (
            top("[scale_down]\nmemory_percent = 75.0"),
            "scale_down.memory_percent",
        ),
        (top("[scale_up]\ncooldown = \"5\""), "scale_up.cooldown"),
        (
            top("[scale_up]\nsustained_readings = 0"),
            "scale_up.sustained_readings",
        ),
        (top("[scale_down]\nwhen = \"always\""), "scale_down.when"),
        (top("[scale_down]\nbudget = \"120%\""), "scale_down.budget"),
        (top("[scale_down]\nbudget = \"some\""), "scale_down.budget"),
        (top("[drain]\ntimeout = \"0s\""), "drain.timeout"),
        (top("[forecast]\nquantile = 1.5"), "forecast.quantile"),
        (LEAST.replace("t3.small", "t3.tiny"), "pool[0].instance_types[0]"),
        (
            LEAST.replace("[\"t3.small\"]", "[\"t3.small\", \"t3.small\"]"),
            "pool[0].instance_types[1]",
        ),
        (
            LEAST.replace("instance_types = [\"t3.small\"]", ""),
            "pool[0].instance_types",
        ),
        (LEAST.replace("zones = [\"us-east-1a\"]", ""), "pool[0].zones"),
        (
            LEAST.replace("zones = [\"us-east-1a\"]", "zones = []"),
            "pool[0].zones",
        ),
        (pool("min_nodes = 3\nmax_nodes = 2"), "pool[0].min_nodes"),
        (
            pool("min_nodes = 4000000000\nmax_nodes = 4100000000"),
            "pool[0].min_nodes",
        ),
        (pool("headroom = { pods = 4000000000 }"), "pool[0].headroom.pods"),
        (pool("markets = []"), "pool[0].markets"),
        (pool("markets = [\"reserved\"]"), "pool[0].markets[0]"),
        (pool("spot_share_percent = 140"), "pool[0].spot_share_percent"),
        (pool("reserved = { cpu = \"lots\" }"), "pool[0].reserved.cpu"),
        (pool("headroom = { cpu = \"100%\" }"), "pool[0].headroom.cpu"),
        (pool("headroom = { cpu = \"-1%\" }"), "pool[0].headroom.cpu"),
        (
            pool("headroom = { memory = \"some%\" }"),
            "pool[0].headroom.memory",
        ),
        (pool("headroom = { memory = \"%\" }"), "pool[0].headroom.memory"),
        (
            pool("headroom = { memory = \"lots\" }"),
            "pool[0].headroom.memory",
        ),
        (pool("headroom = { pods = \"10%\" }"), "pool[0].headroom.pods"),
        (pool("burstable_cpu = \"bursts\""), "pool[0].burstable_cpu"),
        (
            pool("taints = [{ key = \"a\", effect = \"Never\" }]"),
            "pool[0].taints[0].effect",
        ),
        (pool("requirements = { cpu = \"2..8\" }"), "pool[0].requirements"),
        (
            LEAST.replace(
                "instance_types = [\"t3.small\"]",
                "requirements = { cpu = \"8..2\" }",
            ),
            "pool[0].requirements.cpu",
        ),
        (
            format!("{LEAST}{}", LEAST.replace("[cluster]\nid = \"demo\"\n", "")),
            "pool[1].name",
        ),
        (spec("on_demand_price2 = 1"), "instance_type[0].on_demand_price2"),
        (spec("spot_price = -0.1"), "instance_type[0].spot_price"),
        (
            spec("resources = { gpu = \"x\" }"),
            "instance_type[0].resources.gpu",
        ),
        (
            spec("[[instance_type]]\nname = \"x\"\ncpu = 1\nmemory = 1\non_demand_price = 1"),
            "instance_type[1].name",
        ),
        (
            spec("").replace("memory = \"2Gi\"", "memory = \"2Zi\""),
            "instance_type[0].memory",
        ),
        (spec("").replace("cpu = \"2\"", ""), "instance_type[0].cpu"),
    ];
    for (text, path) in cases {
        assert_eq!(path_of_error(&text), path, "{text}");
    }
    assert!(path_of_error("[cluster\n").starts_with("line "));
}

#[test]
fn a_pool_that_cannot_be_bought_is_a_warning() {
    let text = format!(
        "{LEAST}[[instance_type]]\nname = \"t3.small\"\ncpu = 2\nmemory = \"2Gi\"\non_demand_price = 1\nzones = [\"us-east-1f\"]\n"
    );
    let (_, warnings) = Policy::from_toml(&text).unwrap();
    assert_eq!(warnings[0].path, "pool[0]");
}

#[test]
fn spot_that_costs_more_than_on_demand_is_not_bought() {
    let text = format!(
        "{LEAST}markets = [\"spot\", \"on-demand\"]\n[[instance_type]]\nname = \"t3.small\"\ncpu = 2\nmemory = \"2Gi\"\non_demand_price = 1\nspot_price = 2\n"
    );
    let (policy, _) = Policy::from_toml(&text).unwrap();
    let pool = &policy.pools[0];
    assert_eq!(pool.price(&pool.types[0], &pool.zones[0], Market::Spot), None);
    assert_eq!(
        pool.price(&pool.types[0], &pool.zones[0], Market::OnDemand),
        Some(1.0)
    );
}

#[test]
fn shares_are_rounded_in_favour_of_on_demand() {
    let text =
        format!("{LEAST}markets = [\"spot\", \"on-demand\"]\non_demand_base = 1\nspot_share_percent = 70\n");
    let (policy, _) = Policy::from_toml(&text).unwrap();
    let on_demand: Vec<_> = (0..=6).map(|nodes| policy.pools[0].on_demand_of(nodes)).collect();
    assert_eq!(on_demand, [0, 1, 2, 2, 2, 3, 3]);
}

#[test]
fn a_budget_share_is_rounded_down_but_never_to_nothing() {
    let share = |percent| Budget::Share(Percent(percent));
    assert_eq!(
        [
            share(50.0).of(3),
            share(10.0).of(3),
            share(0.0).of(3),
            share(100.0).of(0)
        ],
        [1, 1, 0, 1]
    );
    assert_eq!(Budget::Count(0).of(5), 0);
}

#[test]
fn burstable_types_may_be_counted_by_their_baseline() {
    let text = format!(
        "{LEAST}burstable_cpu = \"baseline\"\nreserved = {{ cpu = \"100m\", memory = \"256Mi\" }}\nmax_pods = 29\n"
    );
    let (policy, _) = Policy::from_toml(&text).unwrap();
    let pool = &policy.pools[0];
    let room = pool.allocatable(&pool.types[0]);
    assert_eq!((room.cpu, room.pods), (MilliCpu(300), 29));
    assert_eq!(room.memory, Bytes(1_986_422_374 - (256 << 20)));
}

#[test]
fn requirements_choose_among_the_built_in_types() {
    let text = LEAST.replace(
        "instance_types = [\"t3.small\"]",
        "requirements = { cpu = \"2..4\", memory = \"4Gi..8Gi\", arch = [\"arm64\"] }",
    );
    let (policy, _) = Policy::from_toml(&text).unwrap();
    let names: Vec<_> = policy.pools[0]
        .types
        .iter()
        .map(|spec| spec.name.as_str())
        .collect();
    assert!(
        names.contains(&"t4g.medium") && names.contains(&"t4g.large"),
        "{names:?}"
    );
    assert!(!names.contains(&"t4g.small") && !names.contains(&"t3.medium"));
}
