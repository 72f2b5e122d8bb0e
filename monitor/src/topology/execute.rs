//! Performing a plan: in order, and on failure back again.

use std::fmt;

use super::step::Step;

/// Who can perform a step: the kernel, or a model of it.
pub trait Perform {
    /// Performs one step.
    ///
    /// # Errors
    /// Nothing of the step may be left behind then.
    fn perform(&mut self, step: &Step) -> anyhow::Result<()>;

    /// How many of these steps, from the first on, [`Perform::perform_together`] does at once.
    fn together(&self, _steps: &[Step]) -> usize {
        1
    }

    /// Performs steps that can be done in one go.
    ///
    /// # Errors
    /// Nothing of them may be left behind then.
    fn perform_together(&mut self, steps: &[Step]) -> anyhow::Result<()> {
        steps.iter().try_for_each(|step| self.perform(step))
    }
}

/// A step failed. Those before it were undone, as far as they could be.
#[derive(Debug)]
pub struct ExecuteError {
    /// Its number in the plan, from 1.
    pub number: usize,
    /// Steps in the plan.
    pub of: usize,
    /// The step.
    pub step: Step,
    /// Why it failed.
    pub cause: anyhow::Error,
    /// How many steps were undone.
    pub undone: usize,
    /// Undoing steps that failed, and why.
    pub left: Vec<(Step, anyhow::Error)>,
}

impl std::error::Error for ExecuteError {}

impl fmt::Display for ExecuteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, of, step, cause, undone, left } = self;
        let steps = if *undone == 1 { "step was" } else { "steps were" };
        let step = step.title();
        write!(f, "step {number} of {of} failed: `{step}`: {cause:#}; {undone} {steps} undone")?;
        for (step, cause) in left {
            let step = step.title();
            write!(f, "; not undone: `{step}`: {cause:#}")?;
        }
        Ok(())
    }
}

/// Performs the steps in order; `progress` hears of each before it is performed. When one fails, those done are undone
/// in reverse, and every failure on the way back is reported too.
///
/// # Errors
/// The step that failed, and what could not be undone.
pub fn execute(
    steps: &[Step],
    performer: &mut impl Perform,
    progress: &mut dyn FnMut(usize, &Step),
) -> Result<(), Box<ExecuteError>> {
    let mut index = 0;
    while index < steps.len() {
        let together = performer.together(&steps[index..]).clamp(1, steps.len() - index);
        let now = &steps[index..index + together];
        (index..).zip(now).for_each(|(index, step)| progress(index, step));
        let done = match now {
            [one] => performer.perform(one),
            several => performer.perform_together(several),
        };
        if let Err(cause) = done {
            let (undone, left) = undo(&steps[..index], performer);
            return Err(Box::new(ExecuteError {
                number: index + 1,
                of: steps.len(),
                step: steps[index].clone(),
                cause,
                undone,
                left,
            }));
        }
        index += together;
    }
    Ok(())
}

fn undo(done: &[Step], performer: &mut impl Perform) -> (usize, Vec<(Step, anyhow::Error)>) {
    let (mut undone, mut left) = (0, Vec::new());
    for step in done.iter().rev().filter_map(Step::undo) {
        match performer.perform(&step) {
            Ok(()) => undone += 1,
            Err(cause) => left.push((step, cause)),
        }
    }
    (undone, left)
}
