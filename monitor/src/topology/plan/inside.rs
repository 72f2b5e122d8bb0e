//! Namespaces themselves, and what is set in them beside links and addresses: sysctls, routes, rules, neighbours.
//!
//! In a namespace that was adopted only what says that it is ours goes; leaving it puts back what was changed.

use super::{
    super::{
        ObservedNetns, Route, Topology,
        adopt::Adopt,
        names::{LinkId, NsName, Place},
        route::{Neighbour, OURS},
        step::Step,
    },
    build::Plan,
};

impl Plan<'_> {
    pub(super) fn namespaces(&mut self, desired: &Topology) {
        for netns in &desired.namespaces {
            let name = netns.name.clone();
            match self.observed.namespaces.get(&name) {
                None => self.steps.push(Step::CreateNetns { name }),
                Some(seen) if seen.owned => {}
                Some(seen) if netns.adopt == Adopt::Own || seen.before.is_none() => {
                    self.steps.push(Step::Adopt { name, how: netns.adopt });
                }
                Some(_) => {}
            }
        }
    }

    /// Leaves the adopted namespaces that are chosen as they were: takes out what is ours, puts back what was changed.
    pub(super) fn leave(&mut self, chosen: &dyn Fn(&NsName) -> bool) {
        for (name, seen) in &self.observed.namespaces {
            let Some(before) = seen.before.as_ref().filter(|_| seen.adopted() && chosen(name)) else {
                continue;
            };
            let place = Place::Netns(name.clone());
            for rule in &seen.rules {
                self.steps.push(Step::DeleteRule { place: place.clone(), rule: rule.clone() });
            }
            for route in self.left(name, seen).filter(|route| route.protocol == OURS) {
                self.steps.push(Step::DeleteRoute { place: place.clone(), route: route.clone() });
            }
            for neighbour in self.neighbours_left(name, seen).filter(|found| found.protocol == OURS) {
                self.steps.push(Step::DeleteNeighbour { place: place.clone(), neighbour: neighbour.clone() });
            }
            for (key, value) in &before.sysctls {
                let from = seen.sysctls.get(key).cloned();
                self.steps.push(Step::SetSysctl {
                    netns: name.clone(),
                    key: key.clone(),
                    from,
                    to: value.clone(),
                });
            }
            self.loopback(name, before.lo_up);
            self.steps.push(Step::Leave { name: name.clone(), how: Adopt::Wire });
        }
    }

    pub(super) fn loopbacks(&mut self, desired: &Topology) {
        for netns in &desired.namespaces {
            self.loopback(&netns.name, netns.lo_up);
        }
    }

    fn loopback(&mut self, netns: &NsName, wanted: bool) {
        let Ok(lo) = "lo".parse() else { return };
        let link = LinkId::inside(netns.clone(), lo);
        // A new namespace has it down.
        let up = self.seen(&link).is_some_and(|seen| seen.up);
        match (wanted, up) {
            (true, false) => self.steps.push(Step::SetUp { link }),
            (false, true) => self.steps.push(Step::SetDown { link }),
            _ => {}
        }
    }

    /// Those of interfaces, or the others: new interfaces take over what is set for all.
    pub(super) fn sysctls(&mut self, desired: &Topology, of_interfaces: bool) {
        for netns in &desired.namespaces {
            let seen = self.observed.namespaces.get(&netns.name);
            let has = |key| seen.and_then(|seen| seen.sysctls.get(key));
            let before = seen.and_then(|seen| seen.before.as_ref()).map(|before| &before.sysctls);
            let put_back = before
                .into_iter()
                .flatten()
                .filter(|(key, _)| !netns.sysctls.iter().any(|(wanted, _)| wanted == *key))
                .map(|(key, value)| (key, value, true));
            let wanted = netns.sysctls.iter().map(|(key, value)| (key, value, false));
            for (key, value, put_back) in put_back.chain(wanted) {
                // Putting back is done even where the value is that already: so that it is not done later, against somebody.
                let wrong = put_back || has(key) != Some(value);
                if wrong && key.interface().is_some() == of_interfaces {
                    let step = Step::SetSysctl {
                        netns: netns.name.clone(),
                        key: key.clone(),
                        from: has(key).cloned(),
                        to: value.clone(),
                    };
                    self.steps.push(step);
                }
            }
        }
    }

    pub(super) fn routes(&mut self, desired: &Topology) {
        for netns in &desired.namespaces {
            let seen = self.observed.namespaces.get(&netns.name);
            let left: Vec<&Route> = seen.into_iter().flat_map(|seen| self.left(&netns.name, seen)).collect();
            let place = Place::Netns(netns.name.clone());
            let missing: Vec<&Route> =
                netns.routes.iter().filter(|wanted| !left.iter().any(|found| wanted.fits(found))).collect();
            for found in left {
                let unwanted =
                    found.protocol == OURS && !netns.routes.iter().any(|wanted| wanted.fits(found));
                // The kernel takes one route to a destination, for one metric.
                if unwanted || missing.iter().any(|wanted| wanted.collides(found)) {
                    self.steps.push(Step::DeleteRoute { place: place.clone(), route: found.clone() });
                }
            }
            for route in missing {
                self.steps.push(Step::AddRoute { place: place.clone(), route: route.clone() });
            }
        }
    }

    pub(super) fn rules(&mut self, desired: &Topology) {
        for netns in &desired.namespaces {
            let has = self.observed.namespaces.get(&netns.name).map_or(&[][..], |seen| &seen.rules);
            let place = Place::Netns(netns.name.clone());
            for rule in has.iter().filter(|rule| !netns.rules.contains(rule)) {
                self.steps.push(Step::DeleteRule { place: place.clone(), rule: rule.clone() });
            }
            for rule in netns.rules.iter().filter(|rule| !has.contains(rule)) {
                self.steps.push(Step::AddRule { place: place.clone(), rule: rule.clone() });
            }
        }
    }

    pub(super) fn neighbours(&mut self, desired: &Topology) {
        for netns in &desired.namespaces {
            let seen = self.observed.namespaces.get(&netns.name);
            let left: Vec<&Neighbour> =
                seen.into_iter().flat_map(|seen| self.neighbours_left(&netns.name, seen)).collect();
            let place = Place::Netns(netns.name.clone());
            let same = |a: &Neighbour, b: &Neighbour| (&a.dev, a.address) == (&b.dev, b.address);
            let fits = |a: &Neighbour, b: &Neighbour| same(a, b) && a.mac == b.mac;
            for found in &left {
                let wanted = netns.neighbours.iter().find(|wanted| same(wanted, found));
                if wanted.map_or(found.protocol == OURS, |wanted| wanted.mac != found.mac) {
                    let neighbour = (*found).clone();
                    self.steps.push(Step::DeleteNeighbour { place: place.clone(), neighbour });
                }
            }
            for wanted in &netns.neighbours {
                if !left.iter().any(|found| fits(wanted, found)) {
                    self.steps.push(Step::AddNeighbour { place: place.clone(), neighbour: wanted.clone() });
                }
            }
        }
    }

    /// Routes that are there after the steps so far: others go with their link or with its addresses.
    fn left<'b>(&self, name: &NsName, seen: &'b ObservedNetns) -> impl Iterator<Item = &'b Route> + use<'b> {
        let goes = |route: &Route| {
            route.dev.as_ref().is_some_and(|dev| {
                let link = LinkId::inside(name.clone(), dev.clone());
                self.removal.is_gone(&link) || (route.to.addr().is_ipv4() && self.flushed.contains(&link))
            })
        };
        let left: Vec<&Route> = seen.routes.iter().filter(|route| !goes(route)).collect();
        left.into_iter()
    }

    fn neighbours_left<'b>(
        &self,
        name: &NsName,
        seen: &'b ObservedNetns,
    ) -> impl Iterator<Item = &'b Neighbour> + use<'b> {
        let goes = |found: &Neighbour| self.removal.is_gone(&LinkId::inside(name.clone(), found.dev.clone()));
        let left: Vec<&Neighbour> = seen.neighbours.iter().filter(|found| !goes(found)).collect();
        left.into_iter()
    }
}
