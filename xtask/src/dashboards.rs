//! `dashboards`: writes dashboards/*.json from their definition, which stands with its tests (monitor/tests/dashboards/make).

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::{
    misused, setup,
    tools::{Place, line},
};

/// `cargo xtask dashboards`.
pub(crate) fn verb(place: &Place, args: &[String]) -> Result<ExitCode> {
    if let [first, ..] = args {
        return Ok(misused(&format!("dashboards takes no argument, not {first:?}")));
    }
    setup::complete(place, setup::Scope::Build, false)?;
    let mut test = place.cargo(&["test", "--quiet", "--package", "monitor", "--test", "dashboards"]);
    test.args(["--", "the_files_are_what_is_defined", "--exact"]).env("UPDATE_GOLDEN", "1");
    if !test.status().with_context(|| line(&test))?.success() {
        bail!("`{}` failed; the messages are above", line(&test));
    }
    println!("dashboards/*.json are written");
    Ok(ExitCode::SUCCESS)
}
