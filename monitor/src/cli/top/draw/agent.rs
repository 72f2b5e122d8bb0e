//! What the agent costs.

use std::time::Duration;

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
};

use super::{ago, draw_scrolled, short};
use crate::{
    cli::top::{
        cost::{Cost, Process, Served},
        numbers::{Unit, count, seconds, volume},
        state::State,
        theme::Theme,
    },
    probe::ProgramCost,
};

pub(super) fn draw(buffer: &mut Buffer, area: Rect, state: &mut State, theme: &Theme) {
    let title = |text: &str| Line::from(Span::styled(format!(" {text} "), theme.title()));
    let Some(cost) = &state.cost else {
        let reading = vec![Line::from(Span::styled("reading …", theme.dim()))];
        draw_scrolled(buffer, area, theme, title("what the agent costs"), reading, 0);
        return;
    };
    let (mut left, right) = (processes(cost, state, theme), objects(cost, state, theme));
    let scroll = state.scroll;
    state.scroll = if area.width < 120 {
        left.push(Line::default());
        left.extend(right);
        draw_scrolled(buffer, area, theme, title("what the agent costs"), left, scroll)
    } else {
        let [one, other] =
            Layout::horizontal([Constraint::Percentage(45), Constraint::Percentage(55)]).areas(area);
        let at = draw_scrolled(buffer, one, theme, title("what the agent costs"), left, scroll);
        at.max(draw_scrolled(buffer, other, theme, title("eBPF programs and maps"), right, scroll))
    };
}

fn field(name: &str, value: String, theme: &Theme) -> Line<'static> {
    Line::from(vec![Span::styled(format!("{name:<14}"), theme.dim()), Span::raw(value)])
}

fn processes(cost: &Cost, state: &State, theme: &Theme) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    match &cost.agent {
        Some(agent) => {
            lines.push(Line::from(Span::styled(format!("agent {}", agent.pid), theme.title())));
            let before = cost.before.as_ref().and_then(|before| before.agent.as_ref());
            lines.extend(process(agent, before, cost, theme));
        }
        None => {
            lines.push(Line::from(Span::styled("no agent runs", theme.warn())));
            lines.push(Line::from(
                "What is attached goes on counting; netns-monitor agent takes it over again.",
            ));
        }
    }
    lines.extend(cost.served.as_ref().map(|served| passes(served, cost, theme)).unwrap_or_default());
    if let Some(own) = &cost.own {
        lines.push(Line::default());
        lines.push(Line::from(Span::styled(format!("this screen {}", own.pid), theme.title())));
        let before = cost.before.as_ref().and_then(|before| before.own.as_ref());
        lines.extend(process(own, before, cost, theme));
        let reading = format!("{} every {}", seconds(state.took.as_secs_f64()), short(state.interval));
        lines.push(field("a reading", reading, theme));
    }
    lines
}

fn process(now: &Process, before: Option<&Process>, cost: &Cost, theme: &Theme) -> Vec<Line<'static>> {
    let between = cost.before.as_ref().map(|before| cost.at - before.at);
    let lately = before.filter(|before| before.pid == now.pid).zip(between).map(|(before, between)| {
        format!("{:.1} % of a core", (now.cpu - before.cpu) * 100.0 / between.as_secs_f64().max(0.001))
    });
    let ever = now
        .age
        .filter(|age| age.as_secs() > 0)
        .map(|age| format!("{:.1} % since its start {}", now.cpu * 100.0 / age.as_secs_f64(), ago(age)));
    let cpu: Vec<_> = lately.into_iter().chain(ever).collect();
    let open = now.descriptors.map_or(String::new(), |open| format!(", {open} descriptors"));
    let memory = format!("{}, {} threads{open}", volume(now.resident as f64, Unit::Bytes), now.threads);
    vec![field("CPU", cpu.join(", "), theme), field("memory", memory, theme)]
}

fn passes(served: &Served, cost: &Cost, theme: &Theme) -> Vec<Line<'static>> {
    let Some(address) = served.address else {
        return vec![field("metrics", "nowhere it listens answers as an agent does".to_owned(), theme)];
    };
    let mut lines = vec![field("metrics", format!("http://{address}/metrics"), theme)];
    if let Some([passes, took, failed]) = served.passes {
        let mean =
            if passes > 0.0 { format!(", {} in the mean", seconds(took / passes)) } else { String::new() };
        lines.push(field("passes", format!("{}{mean}, {} failed", count(passes), count(failed)), theme));
    }
    if let Some((took, bytes, at)) = served.scrape {
        let text = format!(
            "{} for {}, {}",
            seconds(took.as_secs_f64()),
            volume(bytes as f64, Unit::Bytes),
            ago(cost.at.saturating_duration_since(at))
        );
        lines.push(field("a scrape", text, theme));
    }
    if let (Some(unattached), Some(reattached)) = (served.unattached, served.reattached) {
        let style = if unattached > 0.0 { theme.bad() } else { theme.good() };
        lines.push(Line::from(vec![
            Span::styled(format!("{:<14}", "interfaces"), theme.dim()),
            Span::styled(format!("{} uncounted", count(unattached)), style),
            Span::raw(format!(", {} programs put back", count(reattached))),
        ]));
    }
    lines
}

fn objects(cost: &Cost, state: &State, theme: &Theme) -> Vec<Line<'static>> {
    let objects = match &cost.objects {
        Ok(objects) => objects,
        Err(why) => return vec![Line::from(Span::styled(format!("eBPF: {why}"), theme.dim()))],
    };
    let program_bytes: u64 = objects.programs.values().map(|program| program.bytes).sum();
    let text = |bytes: u64| volume(bytes as f64, Unit::Bytes);
    let mut lines = vec![
        field("maps", format!("{}, {}", objects.maps, text(objects.map_bytes)), theme),
        field(
            "programs",
            format!(
                "{}, {}; attached by {} links",
                objects.programs.values().map(|program| program.loaded).sum::<u64>(),
                text(program_bytes),
                objects.links
            ),
            theme,
        ),
    ];
    let measured = match (state.measure, objects.measured) {
        (true, _) => "measured while this is open (m ends it)",
        (false, true) => "measured: kernel.bpf_stats_enabled is 1",
        (false, false) => {
            "not measured; m measures while this is open, which costs each run of any program some ns"
        }
    };
    lines.push(field("run times", measured.to_owned(), theme));
    lines.push(Line::default());
    let header = format!("{:<18}{:>7}{:>10}{:>10}{:>10}", "PROGRAM", "LINKS", "RUNS/s", "ns/RUN", "% CORE");
    lines.push(Line::from(Span::styled(header, theme.dim())));
    let before = cost.before.as_ref().and_then(|before| Some((before.at, before.objects.as_ref().ok()?)));
    for (name, program) in &objects.programs {
        let earlier = before.and_then(|(at, objects)| Some((at, objects.programs.get(name)?)));
        let rates = earlier.and_then(|(at, earlier)| rates(program, earlier, cost.at - at));
        let [runs, each, core] = match rates {
            Some([runs, each, core]) if state.measure || objects.measured => {
                let each = if runs > 0.0 { format!("{each:.0}") } else { "-".to_owned() };
                [count(runs), each, format!("{core:.2}")]
            }
            _ => ["-"; 3].map(str::to_owned),
        };
        lines.push(Line::from(format!("{name:<18}{:>7}{runs:>10}{each:>10}{core:>10}", program.links)));
    }
    lines
}

/// Runs a second, nanoseconds of each, and percent of a core. Absent where a program of the name went meanwhile.
fn rates(now: &ProgramCost, before: &ProgramCost, between: Duration) -> Option<[f64; 3]> {
    let runs = now.runs.checked_sub(before.runs)? as f64;
    let nanoseconds = now.nanoseconds.checked_sub(before.nanoseconds)? as f64;
    let seconds = between.as_secs_f64().max(0.001);
    Some([runs / seconds, nanoseconds / runs.max(1.0), nanoseconds / seconds / 1e7])
}
