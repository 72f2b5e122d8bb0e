//! Performing plans on a model of the kernel: what was asked for is there, a failure anywhere is taken back. For the
//! example, the demonstration, and topologies made at random from fixed seeds.

#[path = "support/model.rs"]
mod model;

use std::fmt::Write as _;

use model::{Model, text};
use monitor::{
    config,
    topology::{
        Topology,
        execute::{ExecuteError, execute},
        names::{LinkId, Place},
        plan::{PlanOptions, plan, teardown, teardown_all},
        step::Step,
    },
};

const COUNTED: PlanOptions = PlanOptions { attach: true };
const SEEDS: u64 = 200;

#[test]
fn after_one_pass_the_next_plan_is_empty() {
    for (name, desired) in topologies() {
        let mut model = Model::default();
        pass(&desired, &mut model);
        assert_eq!(left(&desired, &model), "", "{name}");
    }
}

#[test]
fn from_any_topology_to_any_other_takes_one_pass() {
    let all = topologies();
    let mut exceptions = 0;
    for ((from_name, from), (to_name, to)) in all.iter().zip(all.iter().skip(1)) {
        let mut model = Model::default();
        pass(from, &mut model);
        pass(to, &mut model);
        // A bridge of before that is newly given the MTU it has: whether it keeps that cannot be seen before a port moves it.
        let newly = to.bridges.iter().filter(|bridge| {
            let before = from.bridges.iter().find(|before| before.name == bridge.name);
            bridge.mtu.is_some() && before.is_some_and(|before| before.mtu.is_none())
        });
        let excused: Vec<String> = newly
            .filter_map(|bridge| Some(format!("ip link set {} mtu {}\n", bridge.name, bridge.mtu?)))
            .collect();
        let second = left(to, &model);
        if second.is_empty() {
            continue;
        }
        exceptions += 1;
        assert!(
            second.split_inclusive('\n').all(|line| excused.iter().any(|excused| excused == line)),
            "{from_name} to {to_name}: {second}"
        );
        pass(to, &mut model);
        assert_eq!(left(to, &model), "", "{from_name} to {to_name}");
    }
    assert!(exceptions < 10, "{exceptions} of {}", all.len());
}

#[test]
fn whatever_is_broken_behind_the_agent_is_mended_in_one_pass() {
    for (name, desired) in topologies() {
        let mut random = Random(name.len() as u64 + 7);
        let mut model = Model::default();
        pass(&desired, &mut model);
        for _ in 0..6 {
            meddle(&mut model, &mut random);
            pass(&desired, &mut model);
            assert_eq!(left(&desired, &model), "", "{name}");
        }
    }
}

#[test]
fn tearing_down_leaves_nothing() {
    for (name, desired) in topologies() {
        let mut built = Model::default();
        pass(&desired, &mut built);
        for steps in [teardown(&desired, &built.observed), teardown_all(&built.observed)] {
            let mut model = built.clone();
            model.run(&steps);
            assert_eq!(model.shape().len(), 0, "{name}: {:?}", model.shape());
        }
    }
}

/// The twin of the properties above: the model does not accept everything.
#[test]
fn a_plan_without_one_of_its_steps_is_noticed() {
    let desired = config::parse(config::EXAMPLE, "example").expect("valid");
    let steps = plan(&desired, &Model::default().observed, COUNTED).expect("a plan");
    for without in 0..steps.len() {
        let mut model = Model::default();
        let refused = steps
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != without)
            .any(|(_, step)| model.apply(step).is_err());
        let noticed = refused || !left(&desired, &model).is_empty();
        assert!(noticed, "`{}`", steps[without]);
    }
}

#[test]
fn every_step_made_to_fail_in_turn_is_named_and_the_steps_before_it_are_undone_in_reverse() {
    for (name, desired) in topologies().into_iter().take(40) {
        let initial = Model::default();
        let steps = plan(&desired, &initial.observed, COUNTED).expect("a plan");
        for failing in 0..steps.len() {
            let mut model = initial.clone();
            let error = fail_at(&mut model, &steps, failing);
            let undoing: Vec<Step> = steps[..failing].iter().rev().filter_map(Step::undo).collect();
            assert_eq!(text(&model.done[..failing]), text(&steps[..failing]), "{name}");
            assert_eq!(text(&model.done[failing..]), text(&undoing), "{name}");
            assert_eq!(model.shape(), initial.shape(), "{name}");
            assert_eq!((error.number, error.of, &error.step), (failing + 1, steps.len(), &steps[failing]));
            assert_eq!((error.undone, error.left.len()), (undoing.len(), 0));
            let said = error.to_string();
            let place = format!(
                "step {} of {} failed: `{}`: refused",
                failing + 1,
                steps.len(),
                steps[failing].title()
            );
            assert!(said.starts_with(&place), "{said}");
        }
    }
}

#[test]
fn after_a_failure_at_any_step_the_next_pass_succeeds_and_the_one_after_is_empty() {
    let desired = config::parse(config::EXAMPLE, "example").expect("valid");
    let count = plan(&desired, &Model::default().observed, COUNTED).expect("a plan").len();
    for failing in 0..count {
        let mut model = Model::default();
        let steps = plan(&desired, &model.observed, COUNTED).expect("a plan");
        fail_at(&mut model, &steps, failing);
        pass(&desired, &mut model);
        assert_eq!(left(&desired, &model), "");
    }
}

/// A crash is a failure with nobody to undo it.
#[test]
fn after_a_crash_at_any_step_the_next_pass_succeeds_and_the_one_after_is_empty() {
    for (name, desired) in topologies().into_iter().take(40) {
        let steps = plan(&desired, &Model::default().observed, COUNTED).expect("a plan");
        for crash in 0..steps.len() {
            let mut model = Model::default();
            model.run(&steps[..crash]);
            pass(&desired, &mut model);
            assert_eq!(left(&desired, &model), "", "{name}, after {crash} steps");
        }
    }
}

#[test]
fn mending_that_fails_is_taken_back_too() {
    let desired = config::parse(config::EXAMPLE, "example").expect("valid");
    let mut drifted = Model::default();
    pass(&desired, &mut drifted);
    let links: Vec<LinkId> = drifted.observed.host.keys().cloned().map(LinkId::host).collect();
    for link in links {
        let seen = drifted.link(&link).expect("listed");
        let (from, mtu) = (seen.bridge.clone(), seen.mtu);
        let leave = Step::SetBridge { link: link.clone(), from, to: None };
        drifted.apply(&leave).expect("possible");
        drifted.apply(&Step::SetMtu { link: link.clone(), from: mtu, to: 1280 }).expect("possible");
        drifted.apply(&Step::SetDown { link }).expect("possible");
    }
    let steps = plan(&desired, &drifted.observed, COUNTED).expect("a plan");
    assert!(steps.len() > 5 && steps.iter().all(|step| step.undo().is_some()), "{}", text(&steps));
    for failing in 0..steps.len() {
        let mut model = drifted.clone();
        fail_at(&mut model, &steps, failing);
        assert_eq!(model.shape(), drifted.shape(), "at {}", steps[failing]);
    }
}

#[test]
fn everything_that_cannot_be_undone_is_reported_and_the_rest_is_undone() {
    let desired = config::parse(config::DEMO, "demo").expect("valid");
    let mut model = Model::default();
    let steps = plan(&desired, &model.observed, COUNTED).expect("a plan");
    model.fails = Some(|step| matches!(step, Step::DeleteAddress { .. } | Step::SetDown { .. }));
    let last = steps.len() - 1;
    let error = fail_at(&mut model, &steps, last);
    let undoing: Vec<Step> = steps[..last].iter().rev().filter_map(Step::undo).collect();
    let (refused, undone): (Vec<Step>, Vec<Step>) = undoing
        .into_iter()
        .partition(|step| matches!(step, Step::DeleteAddress { .. } | Step::SetDown { .. }));
    assert!(refused.len() > 5 && undone.len() > 3);
    assert_eq!(error.left.iter().map(|(step, _)| step.clone()).collect::<Vec<_>>(), refused);
    assert_eq!(error.undone, undone.len());
    let said = error.to_string();
    for step in &refused {
        assert!(said.contains(&format!("not undone: `{step}`: always refused by the test")), "{said}");
    }
    assert!(said.contains(&format!("{} steps were undone", undone.len())), "{said}");
}

#[test]
fn progress_hears_of_each_step_before_it_is_performed() {
    let desired = config::parse(config::DEMO, "demo").expect("valid");
    let mut model = Model::default();
    let steps = plan(&desired, &model.observed, COUNTED).expect("a plan");
    let mut heard = Vec::new();
    execute(&steps, &mut model, &mut |index, step| heard.push((index, step.clone()))).expect("performed");
    assert_eq!(heard, steps.iter().cloned().enumerate().collect::<Vec<_>>());
    let mut heard = 0;
    model = Model::default();
    model.budget = Some(3);
    execute(&steps, &mut model, &mut |_, _| heard += 1).expect_err("refused");
    assert_eq!(heard, 4);
}

#[test]
fn undoing_an_undo_is_the_step_itself() {
    for (_, desired) in topologies().into_iter().take(40) {
        for step in plan(&desired, &Model::default().observed, COUNTED).expect("a plan") {
            if let Some(again) = step.undo().and_then(|undo| undo.undo()) {
                assert_eq!(again, step);
            }
        }
    }
}

/// Fails at the step with this index, and returns what is said of it.
fn fail_at(model: &mut Model, steps: &[Step], index: usize) -> Box<ExecuteError> {
    model.done.clear();
    model.budget = Some(index);
    execute(steps, model, &mut |_, _| ()).expect_err("a step was refused")
}

fn pass(desired: &Topology, model: &mut Model) {
    let steps = plan(desired, &model.observed, COUNTED).unwrap_or_else(|error| panic!("{error}"));
    model.run(&steps);
}

fn left(desired: &Topology, model: &Model) -> String {
    text(&plan(desired, &model.observed, COUNTED).expect("a plan"))
}

/// The example, the demonstration, nothing, and many at random; neighbours have much in common.
fn topologies() -> Vec<(String, Topology)> {
    let mut files = vec![
        ("example".to_owned(), config::EXAMPLE.to_owned()),
        ("demo".to_owned(), config::DEMO.to_owned()),
        ("nothing".to_owned(), String::new()),
    ];
    files.extend((1..=SEEDS).map(|seed| (format!("seed {seed}"), random_file(&mut Random(seed)))));
    files
        .into_iter()
        .map(|(name, file)| {
            let desired = config::parse(&file, &name).unwrap_or_else(|errors| panic!("{errors}\n{file}"));
            (name, desired)
        })
        .collect()
}

/// xorshift64*, so that a seed means the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// A valid file from few names, so that two files share some of them in other roles.
fn random_file(random: &mut Random) -> String {
    let mut file = String::new();
    let bridges = random.below(3);
    for bridge in 0..bridges {
        writeln!(file, "[[bridge]]\nname = \"br{bridge}\"").expect("a String takes everything");
        let (v4, v6) = (format!("\"198.51.{bridge}.0/24\""), format!("\"2001:db8:{bridge}::/64\""));
        let subnet = [format!("[{v4}, {v6}]"), v4, v6][random.below(3) as usize].clone();
        writeln!(file, "subnet = {subnet}").expect("a String takes everything");
        if random.one_in(3) {
            writeln!(file, "mtu = {}", 1400 + random.below(3) * 50).expect("a String takes everything");
        }
        let (nat, isolate) = (random.one_in(3), random.one_in(3));
        writeln!(file, "nat = {nat}\nisolate = {isolate}").expect("a String takes everything");
    }
    let namespaces = random.below(5);
    for netns in 0..namespaces {
        writeln!(
            file,
            "[[namespace]]\nname = \"n{netns}\"\nlo = \"{}\"",
            ["up", "down"][random.below(2) as usize]
        )
        .expect("a String takes everything");
        let mut on = Vec::new();
        for bridge in 0..bridges {
            if !random.one_in(3) {
                let mtu = if random.one_in(3) { ", mtu = 1300" } else { "" };
                let mac = match random.one_in(3) {
                    true => format!(", mac = \"02:00:00:00:0{bridge}:{netns:02x}\""),
                    false => String::new(),
                };
                let host =
                    if random.one_in(4) { format!(", host = \"h{netns}{bridge}\"") } else { String::new() };
                on.push(format!("{{ name = \"eth{bridge}\", bridge = \"br{bridge}\"{mtu}{mac}{host} }}"));
            }
        }
        writeln!(file, "interface = [{}]", on.join(", ")).expect("a String takes everything");
        if !on.is_empty() && random.one_in(3) {
            writeln!(file, "publish = [\"80{netns}0:80\", \"9{netns}00-9{netns}09:900-909/udp\"]")
                .expect("a String takes everything");
        }
        if random.one_in(3) {
            let table = 100 + random.below(2);
            writeln!(file, "rule = [{{ priority = {table}, from = \"203.0.113.0/24\", table = {table} }}]")
                .expect("a String takes everything");
            writeln!(file, "sysctl = {{ \"net.ipv4.ip_forward\" = {} }}", random.below(2))
                .expect("a String takes everything");
            if on.first().is_some_and(|first| first.contains("eth0")) {
                let mac = format!("02:00:00:00:00:0{}", random.below(3));
                writeln!(
                    file,
                    "neighbour = [{{ address = \"198.51.0.200\", mac = \"{mac}\", dev = \"eth0\" }}]"
                )
                .expect("a String takes everything");
                writeln!(file, "route = [{{ to = \"203.0.113.0/24\", dev = \"eth0\", table = {table} }}]")
                    .expect("a String takes everything");
            }
        }
        if random.one_in(4) {
            let policy = ["accept", "drop"][random.below(2) as usize];
            writeln!(
                file,
                "firewall = {{ input = {{ policy = \"{policy}\", rule = [\"tcp dport 22 accept\"] }} }}"
            )
            .expect("a String takes everything");
        }
    }
    if bridges == 2 && random.one_in(2) {
        writeln!(file, "[[allow]]\nbetween = [\"br0\", \"br1\"]").expect("a String takes everything");
    }
    let mut pairs = String::new();
    for a in 0..namespaces {
        for b in a..namespaces {
            // Names say which pair it is: two files never join the same two names to others.
            if a != b && random.one_in(2) {
                writeln!(
                    pairs,
                    "[[veth]]\na = {{ name = \"w{a}{b}\", namespace = \"n{a}\", address = \"192.0.2.1/30\" }}\n\
                     b = {{ name = \"w{a}{b}\", namespace = \"n{b}\", address = \"192.0.2.2/30\" }}"
                ).expect("a String takes everything");
            }
        }
        if random.one_in(2) {
            // The same name leads into another namespace in another file.
            let other = random.below(3);
            let inner = random.below(2);
            writeln!(
                pairs,
                "[[veth]]\na = {{ name = \"up{a}\", address = \"203.0.113.{}/30\" }}\n\
                 b = {{ name = \"in{inner}\", namespace = \"n{a}\", address = [\"203.0.113.{}/30\"], mtu = {} }}",
                a * 4 + 1,
                a * 4 + 2,
                1300 + other
            ).expect("a String takes everything");
        }
    }
    file + &pairs
}

/// What people do to a host.
fn meddle(model: &mut Model, random: &mut Random) {
    let mut links: Vec<LinkId> = model.observed.host.keys().cloned().map(LinkId::host).collect();
    for (netns, seen) in &model.observed.namespaces {
        links.extend(seen.links.keys().map(|name| LinkId::inside(netns.clone(), name.clone())));
    }
    if links.is_empty() {
        return;
    }
    let link = links[random.below(links.len() as u64) as usize].clone();
    let up = model.link(&link).expect("listed").up;
    let lo = link.name.as_str() == "lo";
    let change = match random.below(7) {
        0 if !lo => Step::DeleteLink { link },
        1 if up => Step::SetDown { link },
        2 => match &link.place {
            Place::Netns(name) => Step::DeleteNetns { name: name.clone() },
            Place::Host => Step::SetDown { link },
        },
        3 => {
            model.link(&link).expect("listed").mtu += 1;
            return;
        }
        4 => match model.link(&link).expect("listed").addresses.first().copied() {
            Some(address) => Step::DeleteAddress { link, address },
            None => return,
        },
        5 if !lo => Step::AddAddress { link, address: "10.9.9.9/24".parse().expect("an address") },
        _ => {
            model.link(&link).expect("listed").bridge = None;
            return;
        }
    };
    // Some are impossible; then nothing happens.
    let _possible = model.apply(&change);
}
