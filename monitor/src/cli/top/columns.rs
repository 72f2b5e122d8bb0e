//! Columns of the tables: what each is called, how wide it is, by what it sorts. Pure.

use super::{
    model::{DropRow, Row, TcpRow},
    numbers::{Unit, count, rate, seconds, volume},
};

/// What the tabs show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Traffic,
    Drops,
    Tcp,
    Agent,
}

impl Tab {
    pub(super) const ALL: [(Self, &'static str); 4] =
        [(Self::Traffic, "Traffic"), (Self::Drops, "Drops"), (Self::Tcp, "TCP"), (Self::Agent, "Agent")];

    pub(super) fn columns(self) -> &'static [Column] {
        use Column::{
            AllDrops, DropsTotal, Established, Failed, FailedTotal, Lost, LostTotal, Name, Opened, Reason,
            Resent, ResentTotal, Resets, Rtt, Rx, RxPackets, RxTotal, Shape, Trouble, Tx, TxPackets, TxTotal,
        };
        match self {
            Self::Traffic => &[Name, Shape, Rx, Tx, RxPackets, TxPackets, RxTotal, TxTotal, Lost, Trouble],
            Self::Drops => &[Name, Shape, Lost, AllDrops, LostTotal, DropsTotal, Reason],
            Self::Tcp => &[
                Name,
                Shape,
                Resent,
                Failed,
                Resets,
                Opened,
                Rtt,
                Established,
                ResentTotal,
                FailedTotal,
                Trouble,
            ],
            Self::Agent => &[],
        }
    }

    /// What it is sorted by unless one says otherwise.
    pub(super) fn first_sort(self) -> Sort {
        let by = match self {
            Self::Traffic => Column::Trouble,
            Self::Drops | Self::Agent => Column::Lost,
            Self::Tcp => Column::Trouble,
        };
        Sort { by, falling: true }
    }
}

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Name,
    /// A small graph.
    Shape,
    Rx,
    Tx,
    RxPackets,
    TxPackets,
    RxTotal,
    TxTotal,
    Lost,
    AllDrops,
    LostTotal,
    DropsTotal,
    Reason,
    Resent,
    Failed,
    Resets,
    Opened,
    Rtt,
    Established,
    ResentTotal,
    FailedTotal,
    Trouble,
}

/// By what rows are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sort {
    pub(super) by: Column,
    /// The largest first.
    pub(super) falling: bool,
}

/// How a cell looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    /// Nothing, or not known.
    Dim,
    Receive,
    Transmit,
    Warn,
    Bad,
}

impl Column {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Name => "NETNS",
            Self::Shape => "",
            Self::Rx => "RX/s",
            Self::Tx => "TX/s",
            Self::RxPackets => "RX pkt/s",
            Self::TxPackets => "TX pkt/s",
            Self::RxTotal => "RX ALL",
            Self::TxTotal => "TX ALL",
            Self::Lost => "LOST/s",
            Self::AllDrops => "DROPS/s",
            Self::LostTotal => "LOST",
            Self::DropsTotal => "DROPS",
            Self::Reason => "REASON",
            Self::Resent => "RESENT/s",
            Self::Failed => "FAILED/s",
            Self::Resets => "RESETS/s",
            Self::Opened => "OPENED/s",
            Self::Rtt => "RTT",
            Self::Established => "OPEN",
            Self::ResentTotal => "RESENT",
            Self::FailedTotal => "FAILED",
            Self::Trouble => "TROUBLE",
        }
    }

    /// What one reads about it in the help.
    pub(super) fn says(self) -> &'static str {
        match self {
            Self::Name => "the namespace; ~host: the host's own, ~other: of no namespace that is watched",
            Self::Shape => "how it went",
            Self::Rx | Self::Tx => "bytes a second as on the wire, as the namespace sees them",
            Self::RxPackets | Self::TxPackets => "packets a second",
            Self::RxTotal | Self::TxTotal => "bytes since counting began",
            Self::Lost | Self::LostTotal => "packets dropped for a reason that means a loss",
            Self::AllDrops | Self::DropsTotal => "all packets the kernel dropped, the usual ones too",
            Self::Reason => "the kernel's reason that matters most, and what it means",
            Self::Resent | Self::ResentTotal => "TCP segments sent again",
            Self::Failed | Self::FailedTotal => "TCP connects that failed",
            Self::Resets => "TCP resets, both ways",
            Self::Opened => "TCP connections that came to be",
            Self::Rtt => "mean round-trip time of TCP connections that ended lately",
            Self::Established => "TCP connections established now",
            Self::Trouble => "what went wrong lately, the worst first",
        }
    }

    /// Its width; 0 for what takes the rest.
    pub(super) fn width(self, shape: u16, name: u16) -> u16 {
        match self {
            Self::Name => name,
            Self::Shape => shape,
            Self::Rx | Self::Tx | Self::RxTotal | Self::TxTotal => 8,
            Self::Lost | Self::AllDrops | Self::LostTotal | Self::DropsTotal => 7,
            Self::RxPackets | Self::TxPackets => 8,
            Self::Resent | Self::Failed | Self::Resets | Self::Opened => 8,
            Self::Rtt => 7,
            Self::Established | Self::ResentTotal | Self::FailedTotal => 6,
            Self::Reason | Self::Trouble => 0,
        }
    }

    /// How wide a screen must be for it to be shown.
    pub(super) fn from(self, tab: Tab) -> u16 {
        match (self, tab) {
            (Self::Shape, _) => 110,
            (Self::RxTotal | Self::TxTotal, _) => 120,
            (Self::Lost, Tab::Traffic) => 100,
            (Self::ResentTotal | Self::FailedTotal, _) => 130,
            (Self::Established, _) => 90,
            (Self::Resets, _) => 100,
            (Self::RxPackets | Self::TxPackets, _) => 70,
            (Self::DropsTotal, _) => 70,
            _ => 0,
        }
    }

    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Name | Self::Reason | Self::Trouble | Self::Shape)
    }

    /// Text sorts from a to z first, numbers from the largest.
    pub(super) fn falls_first(self) -> bool {
        !matches!(self, Self::Name | Self::Reason)
    }

    /// The column of the same since counting began.
    fn ever(self) -> Option<Self> {
        match self {
            Self::Rx => Some(Self::RxTotal),
            Self::Tx => Some(Self::TxTotal),
            Self::Lost => Some(Self::LostTotal),
            Self::AllDrops => Some(Self::DropsTotal),
            Self::Resent => Some(Self::ResentTotal),
            Self::Failed => Some(Self::FailedTotal),
            _ => None,
        }
    }

    /// What rows are sorted by; absent comes last.
    fn number(self, row: &Row) -> Option<f64> {
        let traffic = |at: usize| row.rate.map(|rate| rate[at]);
        let total = |at: usize| row.total.map(|total| total[at] as f64);
        let drops = |of: fn(&DropRow) -> f64| row.drops.as_ref().map(of);
        let tcp = |at: usize| row.tcp.as_ref().and_then(|tcp| tcp.rate).map(|rate| rate[at]);
        let tcp_total = |at: usize| row.tcp.as_ref().map(|tcp| tcp.total[at] as f64);
        match self {
            Self::Name | Self::Reason | Self::Shape => None,
            Self::Rx => traffic(0),
            Self::Tx => traffic(1),
            Self::RxPackets => traffic(2),
            Self::TxPackets => traffic(3),
            Self::RxTotal => total(0),
            Self::TxTotal => total(1),
            Self::Lost => drops(|drops| drops.lost_rate),
            Self::AllDrops => drops(|drops| drops.rate),
            Self::LostTotal => drops(|drops| drops.lost as f64),
            Self::DropsTotal => drops(|drops| drops.all as f64),
            Self::Resent => tcp(0),
            Self::Failed => tcp(1),
            Self::Resets => tcp(2),
            Self::Opened => tcp(3),
            Self::Rtt => row.tcp.as_ref().and_then(|tcp: &TcpRow| tcp.rtt),
            Self::Established => row.tcp.as_ref().and_then(|tcp| tcp.established).map(|count| count as f64),
            Self::ResentTotal => tcp_total(0),
            Self::FailedTotal => tcp_total(1),
            Self::Trouble => {
                let bad = row.troubles.iter().filter(|trouble| trouble.bad).count();
                (!row.troubles.is_empty()).then_some((2 * usize::from(bad > 0) + 1) as f64)
            }
        }
    }

    fn text(self, row: &Row) -> Option<&str> {
        match self {
            Self::Name => Some(&row.label),
            Self::Reason => row.drops.as_ref()?.first.as_deref(),
            _ => None,
        }
    }

    /// What is written in a cell of numbers.
    pub(super) fn cell(self, row: &Row, unit: Unit) -> (String, Tone) {
        let Some(number) = self.number(row) else { return ("-".to_owned(), Tone::Dim) };
        let text = match self {
            Self::Rx | Self::Tx => rate(number, unit),
            Self::RxTotal | Self::TxTotal => volume(number, unit),
            Self::Rtt => seconds(number),
            Self::LostTotal
            | Self::DropsTotal
            | Self::ResentTotal
            | Self::FailedTotal
            | Self::Established => count(number),
            _ => count(number),
        };
        let tone = match self {
            _ if number == 0.0 => Tone::Dim,
            Self::Rx | Self::RxPackets | Self::RxTotal => Tone::Receive,
            Self::Tx | Self::TxPackets | Self::TxTotal => Tone::Transmit,
            Self::Lost | Self::Failed => Tone::Bad,
            Self::Resent => Tone::Warn,
            _ => Tone::Plain,
        };
        (text, tone)
    }
}

impl Sort {
    /// Puts rows in order: those of which the number is not known last, equal ones by what there ever was, then by
    /// traffic, then by name.
    pub(super) fn sort(self, rows: &mut [&Row]) {
        use std::cmp::Ordering;
        let turn = |order: Ordering| if self.falling { order.reverse() } else { order };
        let known = |a: bool, b: bool| b.cmp(&a);
        let weight = |row: &Row| row.rate.map_or(-1.0, |rate| rate[0] + rate[1]);
        rows.sort_by(|a, b| {
            let order = match (self.by.text(a), self.by.text(b)) {
                (Some(a), Some(b)) => turn(a.cmp(b)),
                (a, b) if a.is_some() != b.is_some() => known(a.is_some(), b.is_some()),
                _ => match (self.by.number(a), self.by.number(b)) {
                    (Some(a), Some(b)) => turn(a.total_cmp(&b)),
                    (a, b) => known(a.is_some(), b.is_some()),
                },
            };
            let all = |row: &Row| self.by.ever().and_then(|column| column.number(row)).unwrap_or(0.0);
            let order = order.then_with(|| turn(all(a).total_cmp(&all(b))));
            order.then_with(|| weight(b).total_cmp(&weight(a))).then_with(|| a.label.cmp(&b.label))
        });
    }
}
