//! The manifests for Kubernetes: rendered by the real kustomize, read by the API's own types, and as little as the agent needs.

mod support;

use std::{path::PathBuf, process::Command};

use k8s_openapi::{
    api::{apps::v1::DaemonSet, core::v1::Namespace},
    serde::{Serialize, de::DeserializeOwned},
};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    support::root().join("xtask/package/kubernetes")
}

/// What `kubectl apply -k` would send.
fn rendered() -> Vec<Value> {
    let kubectl = support::root().join("target/tools/kubernetes/usr/bin/kubectl");
    let output = Command::new(&kubectl).arg("kustomize").arg(folder()).output();
    let output =
        output.unwrap_or_else(|error| panic!("{}: {error}: run `cargo xtask setup`", kubectl.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    documents(&String::from_utf8(output.stdout).expect("UTF-8"))
}

fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).expect("YAML")
}

/// Read as one type of the API and written again: what it does not know is lost, what is wrong in it is an error.
fn check<T: Serialize + DeserializeOwned>(document: &Value) -> Result<(), String> {
    let typed: T = serde_json::from_value(document.clone()).map_err(|error| error.to_string())?;
    let again = serde_json::to_value(&typed).map_err(|error| error.to_string())?;
    match lost(document, &again) {
        None => Ok(()),
        Some(path) => Err(format!("the API knows no {path}")),
    }
}

/// The first thing that one has and the other lacks.
fn lost(before: &Value, after: &Value) -> Option<String> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before.iter().find_map(|(key, value)| {
            let below = lost(value, after.get(key).unwrap_or(&Value::Null))?;
            Some(format!("{key}.{below}").trim_end_matches('.').to_owned())
        }),
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            before.iter().zip(after).find_map(|(before, after)| lost(before, after))
        }
        _ => (before != after).then(String::new),
    }
}

fn of_kind(kind: &str) -> Value {
    let found = rendered().into_iter().find(|document| document["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}"))
}

fn agent(daemonset: &Value) -> &Value {
    &daemonset["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn what_kustomize_renders_is_what_the_api_takes() {
    let kinds: Vec<_> = rendered().iter().map(|document| document["kind"].clone()).collect();
    assert_eq!(kinds, ["Namespace", "DaemonSet"]);
    check::<Namespace>(&of_kind("Namespace")).expect("a namespace");
    check::<DaemonSet>(&of_kind("DaemonSet")).expect("a daemon set");
}

#[test]
fn a_field_that_the_api_does_not_know_and_one_of_a_wrong_kind_are_found() {
    let daemonset = of_kind("DaemonSet");
    for (pointer, key, value, what) in [
        ("/spec/template/spec", "hostPid", json!(true), "spec.template.spec.hostPid"),
        ("/spec/template/spec/containers/0/livenessProbe", "period", json!(3), "period"),
        ("/spec/template/spec/volumes/0/hostPath", "kind", json!("Directory"), "hostPath.kind"),
        ("/spec/template/spec", "hostNetwork", json!("yes"), "invalid type"),
        ("/spec/template/spec/containers/0", "ports", json!([{ "containerPort": "web" }]), "invalid type"),
    ] {
        let mut broken = daemonset.clone();
        broken.pointer_mut(pointer).expect(pointer)[key] = value;
        let said = check::<DaemonSet>(&broken).expect_err(what);
        assert!(said.contains(what), "{what}: {said}");
    }
}

#[test]
fn selector_mounts_ports_and_version_fit_each_other() {
    let daemonset = of_kind("DaemonSet");
    let spec = &daemonset["spec"]["template"]["spec"];
    assert_eq!(
        daemonset["spec"]["selector"]["matchLabels"],
        daemonset["spec"]["template"]["metadata"]["labels"]
    );
    let names = |list: &Value| -> Vec<_> {
        list.as_array().expect("a list").iter().map(|v| v["name"].clone()).collect()
    };
    assert_eq!(names(&spec["volumes"]), names(&agent(&daemonset)["volumeMounts"]));
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(agent(&daemonset)[probe]["httpGet"]["port"], "metrics", "{probe}");
    }
    assert_eq!(agent(&daemonset)["livenessProbe"]["httpGet"]["path"], "/-/healthy");
    assert_eq!(agent(&daemonset)["readinessProbe"]["httpGet"]["path"], "/-/ready");
    assert_eq!(agent(&daemonset)["image"], concat!("netns-monitor:", env!("CARGO_PKG_VERSION")));
    // Namespaces that come later are seen only where mounts come in.
    let mounts = agent(&daemonset)["volumeMounts"].as_array().expect("mounts");
    let netns = mounts.iter().find(|mount| mount["mountPath"] == "/run/netns").expect("the names");
    assert_eq!(netns["mountPropagation"], "HostToContainer");
    assert_eq!((&spec["hostNetwork"], &spec["hostPID"]), (&json!(true), &json!(true)));
}

#[test]
fn the_pod_has_no_token_no_role_and_the_units_capabilities_alone() {
    let daemonset = of_kind("DaemonSet");
    let spec = &daemonset["spec"]["template"]["spec"];
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec.get("serviceAccountName"), None);
    let context = &agent(&daemonset)["securityContext"];
    assert_eq!(context.get("privileged"), None);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
    let unit = std::fs::read_to_string(support::root().join("xtask/package/netns-monitor.service"))
        .expect("the unit");
    let set =
        unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).expect("its capabilities");
    let unit: Vec<_> = set.split(' ').map(|name| name.trim_start_matches("CAP_").to_owned()).collect();
    assert_eq!(context["capabilities"]["add"], json!(unit));
}

#[test]
fn the_pod_monitor_selects_the_pods_and_gives_the_job_that_alerts_expect() {
    let text = std::fs::read_to_string(folder().join("podmonitor.yaml")).expect("podmonitor.yaml");
    let [monitor] = &documents(&text)[..] else { panic!("one document") };
    let daemonset = of_kind("DaemonSet");
    let labels = &daemonset["spec"]["template"]["metadata"]["labels"];
    assert_eq!(monitor["spec"]["selector"]["matchLabels"], *labels);
    assert_eq!(labels[monitor["spec"]["jobLabel"].as_str().expect("a label")], "netns-monitor");
    assert_eq!(monitor["metadata"]["namespace"], daemonset["metadata"]["namespace"]);
    let [endpoint] = &monitor["spec"]["podMetricsEndpoints"].as_array().expect("endpoints")[..] else {
        panic!("one")
    };
    let port = &agent(&daemonset)["ports"][0];
    assert_eq!((&endpoint["port"], &endpoint["path"]), (&port["name"], &json!("/metrics")));
    assert_eq!(endpoint["relabelings"][0]["targetLabel"], "instance");
}
