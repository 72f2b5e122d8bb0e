//! Plans that fail: every step made to fail in turn, on a model of the kernel.

use super::model::{COUNTED, Model, topology};
use monitor::{
    config::{DEMO, EXAMPLE},
    topology::{Observed, Topology, execute::execute, plan::plan, step::Step},
};

fn steps(topology: &Topology, observed: &Observed) -> Vec<Step> {
    plan(topology, observed, COUNTED).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn whichever_step_fails_those_before_it_are_undone_in_reverse() {
    for text in [EXAMPLE, DEMO] {
        let wanted = topology(text);
        let plan = steps(&wanted, &Observed::default());
        for number in 0..plan.len() {
            let mut model = Model { refuse: Some(number), ..Model::default() };
            let error = execute(&plan, &mut model, &mut |_, _| ()).expect_err("a step was refused");
            assert_eq!((error.number, error.of, &error.step), (number + 1, plan.len(), &plan[number]));
            assert!(error.left.is_empty(), "{error}");
            let said = error.to_string();
            let expected =
                format!("step {} of {} failed: `{}`: refused", number + 1, plan.len(), plan[number]);
            assert!(said.starts_with(&expected), "{said}");
            let undone: Vec<Step> = plan[..number].iter().rev().filter_map(Step::undo).collect();
            assert_eq!(model.done[number..], undone, "after step {number}");
            assert_eq!(error.undone, undone.len());
            assert_eq!(model.observed, Observed::default(), "after step {number}");
        }
    }
}

#[test]
fn a_change_that_fails_leaves_what_was_there_before() {
    let before = topology(DEMO);
    let after = topology(&DEMO.replace("name = \"eth0\", ", "name = \"eth0\", mtu = 1400, "));
    let built = Model::built(&before);
    let plan = steps(&after, &built.observed);
    assert!(plan.len() >= 4, "{plan:#?}");
    for number in 0..plan.len() {
        let mut model = Model { refuse: Some(number), ..built.clone() };
        execute(&plan, &mut model, &mut |_, _| ()).expect_err("a step was refused");
        assert_eq!(model.observed, built.observed, "after step {number}");
    }
}

#[test]
fn a_second_run_finishes_what_a_failed_one_began() {
    let wanted = topology(EXAMPLE);
    let plan = steps(&wanted, &Observed::default());
    for number in 0..plan.len() {
        let mut model = Model { refuse: Some(number), ..Model::default() };
        execute(&plan, &mut model, &mut |_, _| ()).expect_err("a step was refused");
        let again = steps(&wanted, &model.observed);
        execute(&again, &mut model, &mut |_, _| ()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(steps(&wanted, &model.observed), []);
    }
}

/// Killed at any step, without undoing anything: the next run converges.
#[test]
fn a_run_that_is_killed_is_finished_by_the_next() {
    let wanted = topology(EXAMPLE);
    let plan = steps(&wanted, &Observed::default());
    for number in 0..plan.len() {
        let mut model = Model::default();
        execute(&plan[..number], &mut model, &mut |_, _| ()).unwrap_or_else(|error| panic!("{error}"));
        let rest = steps(&wanted, &model.observed);
        execute(&rest, &mut model, &mut |_, _| ()).unwrap_or_else(|error| panic!("after {number}: {error}"));
        assert_eq!(steps(&wanted, &model.observed), [], "after {number}");
    }
}

#[test]
fn what_cannot_be_undone_is_reported_and_the_rest_is_undone() {
    let wanted = topology(DEMO);
    let plan = steps(&wanted, &Observed::default());
    let stuck = plan.iter().find_map(|step| match step {
        Step::AddAddress { .. } => step.undo(),
        _ => None,
    });
    let mut model = Model { refuse: Some(plan.len() - 1), never: stuck.clone(), ..Model::default() };
    let error = execute(&plan, &mut model, &mut |_, _| ()).expect_err("refused");
    assert_eq!(
        error.left.iter().map(|(step, _)| Some(step.clone())).collect::<Vec<_>>(),
        std::slice::from_ref(&stuck)
    );
    let said = error.to_string();
    let expected = format!("not undone: `{}`: refused", stuck.expect("a step"));
    assert!(said.contains(&expected), "{said}");
    assert!(model.observed.namespaces.is_empty());
}

#[test]
fn every_step_that_makes_something_has_an_undo_that_removes_it() {
    let wanted = topology(EXAMPLE);
    for step in steps(&wanted, &Observed::default()) {
        match step {
            Step::Attach { .. } => assert_eq!(step.undo(), None, "programs go with their link"),
            step => assert!(step.undo().is_some(), "{step}"),
        }
    }
}
