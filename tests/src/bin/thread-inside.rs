//! A process with one thread inside a named namespace, the others outside, until it is killed.

use std::thread;

use monitor_tests::host::spawn_inside;

fn main() {
    let netns = std::env::args().nth(1).expect("the name of a namespace");
    spawn_inside(&netns, || {
        loop {
            thread::park();
        }
    })
    .join()
    .expect("never");
}
