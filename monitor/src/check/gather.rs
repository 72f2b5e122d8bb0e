//! Reads what is decided on, many namespaces at a time. Changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::scene::Scene;
use crate::{
    reconcile::{
        Kernel,
        site::{Closer, Way},
    },
    topology::{
        Observed,
        names::{NsName, Place},
    },
};

/// How many namespaces are worked in at once: each waits for answers most of the time.
const AT_ONCE: usize = 32;

/// Does something for each of several places, many at a time; the first failure ends it.
///
/// # Errors
/// The first that failed.
pub(super) fn each<K: Clone + Ord + Send + Sync, T: Send>(
    keys: &[K],
    work: impl Fn(&K) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<BTreeMap<K, T>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let run = || -> anyhow::Result<()> {
        while let Some(key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = work(key);
            if result.is_err() {
                next.store(keys.len(), Ordering::Relaxed);
            }
            done.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), result?);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE.min(keys.len())).map(|_| scope.spawn(run)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_panic| anyhow::anyhow!("a thread that looks panicked"))?
        })
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The host and these namespaces. Where an end of a pair is in none of them, all that were observed are looked at.
///
/// # Errors
/// What the kernel refused.
pub(super) fn scene(kernel: &Kernel, observed: &Observed, namespaces: &[NsName]) -> anyhow::Result<Scene> {
    let mut scene = Scene { table: kernel.table().to_owned(), ..Scene::default() };
    let place = |name: &NsName| Place::Netns(name.clone());
    look(kernel, &mut scene, [Place::Host].into_iter().chain(namespaces.iter().map(place)))?;
    let alone = |scene: &Scene| {
        let ends: Vec<_> =
            scene.links().filter(|(id, link)| id.place != Place::Host && link.kind == "veth").collect();
        ends.iter().any(|(id, _)| scene.peer(id).is_none())
    };
    if alone(&scene) {
        let rest: Vec<Place> = observed.namespaces.keys().map(place).collect();
        let rest: Vec<Place> = rest.into_iter().filter(|place| !scene.sites.contains_key(place)).collect();
        look(kernel, &mut scene, rest)?;
    }
    scene.routes.insert(Place::Host, observed.host_routes.clone());
    for (name, netns) in &observed.namespaces {
        scene.routes.insert(place(name), netns.routes.clone());
    }
    Ok(scene)
}

/// Looks at places, or looks again.
///
/// # Errors
/// What the kernel refused.
pub(super) fn look(
    kernel: &Kernel,
    scene: &mut Scene,
    places: impl IntoIterator<Item = Place>,
) -> anyhow::Result<()> {
    let places: Vec<Place> = places.into_iter().collect();
    scene.sites.extend(each(&places, |place| kernel.site(place))?);
    Ok(())
}

/// Where these places would send packets for these addresses.
///
/// # Errors
/// What the kernel refused.
pub(super) fn ways(
    kernel: &Kernel,
    asked: &BTreeMap<Place, BTreeSet<IpAddr>>,
) -> anyhow::Result<BTreeMap<(Place, IpAddr), Way>> {
    let places: Vec<Place> = asked.keys().cloned().collect();
    let found = each(&places, |place| kernel.ways(place, &asked[place]))?;
    let flat = found.into_iter().flat_map(|(place, ways)| {
        ways.into_iter().map(move |(address, way)| ((place.clone(), address), way))
    });
    Ok(flat.collect())
}

/// Settings and rules of places.
///
/// # Errors
/// One cannot be entered.
pub(super) fn closer(
    kernel: &Kernel,
    asked: &BTreeMap<Place, BTreeSet<String>>,
) -> anyhow::Result<BTreeMap<Place, Closer>> {
    let places: Vec<Place> = asked.keys().cloned().collect();
    each(&places, |place| kernel.closer(place, &asked[place]))
}
