//! The demo on a terminal: nodes, operations, decisions and what happens, drawn anew several times a second.
//!
//! ```text
//!   World ─look─▶ Picture ─draw─▶ frame
//!    log ─lines─▶ events ─────────▲
//!   keys (a thread) ─▶ q, Esc or Ctrl-C ends it
//! ```
//! The terminal is in raw mode meanwhile, so that Ctrl-C arrives as a key; leaving, by whatever way, restores it.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Cell, Paragraph, Row, Table, Wrap},
};
use smartscale_planner::{Action, model::NodeName};
use smartscale_proto::time::Clock as _;
use smartscale_simulator::{
    cloud::InstanceState,
    story::stamp,
    world::{
        World,
        records::{self, Operation},
    },
};
use tokio::sync::mpsc;

use super::lines::{Form, Lines};

/// Real time between two frames.
const FRAME: Duration = Duration::from_millis(120);
/// Keys are waited for so long before the thread looks whether it has to end.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// Events that are kept for the lower part of the screen.
const EVENTS: usize = 200;
/// Operations and decisions that are shown at most.
const SHOWN: usize = 8;

/// The view.
pub(super) struct View {
    terminal: DefaultTerminal,
    keys: mpsc::UnboundedReceiver<()>,
    closing: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    lines: Lines,
    next: u64,
    picture: Picture,
}

impl View {
    /// Takes the terminal over.
    pub(super) fn open() -> io::Result<Self> {
        let terminal = ratatui::try_init()?;
        let (pressed, keys) = mpsc::unbounded_channel();
        let closing = Arc::new(AtomicBool::new(false));
        let reader = std::thread::spawn({
            let closing = Arc::clone(&closing);
            move || read_keys(&closing, &pressed)
        });
        Ok(Self {
            terminal,
            keys,
            closing,
            reader: Some(reader),
            lines: Lines::new(Form::Lines),
            next: 0,
            picture: Picture::default(),
        })
    }

    /// Says something in the last line from now on.
    pub(super) fn say(&mut self, footer: &str) {
        footer.clone_into(&mut self.picture.footer);
    }

    /// Shows the world until the person leaves.
    pub(super) async fn follow(&mut self, world: &World) -> anyhow::Result<()> {
        let mut frames = tokio::time::interval(FRAME);
        frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = self.keys.recv() => return Ok(()),
                _ = frames.tick() => {}
            }
            self.look(world).await?;
            let picture = &self.picture;
            self.terminal.draw(|frame| draw(frame, picture))?;
        }
    }

    async fn look(&mut self, world: &World) -> anyhow::Result<()> {
        for entry in world.log.since(self.next) {
            self.next = entry.number + 1;
            if entry.kind == "act" {
                self.picture.act = format!("{}: {}", entry.subject, entry.message);
            }
            if let Some(line) = self.lines.line(&entry)? {
                let events = &mut self.picture.events;
                events.extend(line.lines().filter(|line| !line.is_empty()).map(str::to_owned));
                while events.len() > EVENTS {
                    events.pop_front();
                }
            }
        }
        self.picture.look(world).await
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        ratatui::restore();
    }
}

fn read_keys(closing: &AtomicBool, pressed: &mpsc::UnboundedSender<()>) {
    while !closing.load(Ordering::Relaxed) {
        match event::poll(KEY_WAIT) {
            Ok(false) => {}
            Ok(true) => {
                let Ok(event) = event::read() else { return };
                if matches!(event, Event::Key(key) if leaves(key)) && pressed.send(()).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

fn leaves(key: KeyEvent) -> bool {
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

/// A node as a row.
#[derive(Debug, Clone, PartialEq)]
struct NodeRow {
    name: String,
    offer: String,
    zone: String,
    state: &'static str,
    pods: String,
    cpu: Option<f64>,
}

/// What is drawn.
#[derive(Debug, Default)]
struct Picture {
    at: Duration,
    speed: f64,
    act: String,
    leader: String,
    nodes: Vec<NodeRow>,
    pending: usize,
    cost_per_hour: f64,
    operations: Vec<(bool, String)>,
    decisions: Vec<String>,
    now: String,
    events: VecDeque<String>,
    footer: String,
}

impl Picture {
    async fn look(&mut self, world: &World) -> anyhow::Result<()> {
        self.at = world.clock.elapsed();
        self.speed = world.clock.speed();
        self.leader = records::leader(&world.store)
            .await?
            .map_or_else(|| "nobody".to_owned(), |leader| leader.to_string());
        self.pending = world.cluster.pending();
        self.look_at_nodes(world);
        let operations = records::operations(&world.store).await?;
        self.operations = operations.iter().rev().take(SHOWN).map(operation_line).collect();
        let decisions = records::decisions(&world.store).await?;
        let start = world.clock.start();
        self.now = decisions
            .last()
            .map(|record| record.plan.summary.clone())
            .unwrap_or_default();
        self.decisions = decisions
            .iter()
            .rev()
            .filter(|record| record.plan.action != Action::None && !record.operations.is_empty())
            .take(SHOWN)
            .map(|record| {
                let at = record.time.duration_since(start).as_secs_f64();
                format!("{} {}", stamp(at), record.plan.summary)
            })
            .collect();
        Ok(())
    }

    fn look_at_nodes(&mut self, world: &World) {
        let model = world.cluster.model();
        let mut rows = BTreeMap::new();
        self.cost_per_hour = 0.0;
        for (instance, price) in world.cloud.instances() {
            let leaving = instance.state == InstanceState::ShuttingDown;
            if !instance.state.is_alive() && !leaving {
                continue;
            }
            if !leaving {
                self.cost_per_hour += price;
            }
            let row = NodeRow {
                name: instance.id.to_string(),
                offer: format!("{} {}", instance.instance_type, instance.market),
                zone: instance.zone.to_string(),
                state: if leaving { "terminating" } else { "booting" },
                pods: String::new(),
                cpu: None,
            };
            rows.insert(NodeName::from(instance.id.as_str()), row);
        }
        for node in &model.nodes {
            let Some(row) = rows.get_mut(&node.name) else {
                continue;
            };
            row.state = match (node.unschedulable, node.ready) {
                _ if row.state == "terminating" => "terminating",
                (true, _) => "draining",
                (false, true) => "ready",
                (false, false) => "joining",
            };
            let mut apps: BTreeMap<&str, usize> = BTreeMap::new();
            for pod in model
                .pods
                .iter()
                .filter(|pod| pod.node.as_ref() == Some(&node.name))
            {
                if !pod.is_owned_by("DaemonSet") {
                    *apps
                        .entry(pod.labels.get("app").map_or("?", AsRef::as_ref))
                        .or_default() += 1;
                }
            }
            row.pods = apps
                .iter()
                .map(|(app, count)| format!("{app} {count}"))
                .collect::<Vec<_>>()
                .join("  ");
            row.cpu = world.load.usage(node.name.as_str()).map(|usage| usage.0);
        }
        self.nodes = rows.into_values().collect();
    }
}

fn operation_line(operation: &Operation) -> (bool, String) {
    let note = operation
        .steps
        .last()
        .map(|step| step.note.as_str())
        .unwrap_or_default();
    let taken = if operation.takeovers > 0 {
        " (taken over)"
    } else {
        ""
    };
    let text = format!(
        "{} {}{taken}: {note}",
        operation.what.as_str(),
        operation.phase.as_str()
    );
    (!operation.phase.is_end(), text)
}

fn draw(frame: &mut Frame<'_>, picture: &Picture) {
    let nodes_height = u16::try_from(picture.nodes.len())
        .unwrap_or(u16::MAX)
        .clamp(3, 10)
        + 3;
    let footer = if picture.footer.is_empty() {
        "q or Ctrl-C ends the demo"
    } else {
        picture.footer.as_str()
    };
    let footer_height = rows_of(footer, frame.area().width);
    let footer = Paragraph::new(footer)
        .style(Style::new().fg(Color::DarkGray))
        .wrap(Wrap { trim: true });
    let [head, middle, middle_low, events, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(nodes_height),
        Constraint::Length(7),
        Constraint::Min(4),
        Constraint::Length(footer_height),
    ])
    .areas(frame.area());
    draw_head(frame, head, picture);
    draw_nodes(frame, middle, picture);
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(middle_low);
    let open = Style::new().fg(Color::Yellow);
    let operations = picture.operations.iter().map(|(is_open, text)| {
        Line::styled(
            text.as_str(),
            if *is_open {
                open
            } else {
                Style::new().fg(Color::DarkGray)
            },
        )
    });
    frame.render_widget(
        Paragraph::new(operations.collect::<Vec<_>>()).block(Block::bordered().title(" operations ")),
        left,
    );
    let mut decisions: Vec<Line<'_>> = vec![Line::from(vec![
        Span::raw("now  ").dim(),
        Span::raw(picture.now.as_str()),
    ])];
    decisions.extend(picture.decisions.iter().map(|text| Line::raw(text.as_str())));
    frame.render_widget(
        Paragraph::new(decisions).block(Block::bordered().title(" decisions ")),
        right,
    );
    let room = usize::from(events.height.saturating_sub(2));
    let tail = picture
        .events
        .iter()
        .skip(picture.events.len().saturating_sub(room));
    let tail: Vec<Line<'_>> = tail.map(|line| Line::raw(line.as_str())).collect();
    frame.render_widget(
        Paragraph::new(tail).block(Block::bordered().title(" what happens ")),
        events,
    );
    frame.render_widget(footer, foot);
}

/// Rows that suffice for a text that is wrapped at words: a word that does not fit any more leaves a row half empty.
fn rows_of(text: &str, width: u16) -> u16 {
    match text.chars().count().div_ceil(usize::from(width.max(1))) {
        0 | 1 => 1,
        rows => u16::try_from(rows + 1).unwrap_or(u16::MAX),
    }
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let pending = match picture.pending {
        0 => Span::raw("no pod pending"),
        count => Span::styled(format!("{count} pods pending"), Style::new().fg(Color::Red)),
    };
    let lines = vec![
        Line::from(vec![
            Span::styled("SmartScale demo", Style::new().add_modifier(Modifier::BOLD)),
            Span::raw(format!(
                "  {} (×{:.0})  leader {}  ${:.4}/h  ",
                stamp(picture.at.as_secs_f64()),
                picture.speed,
                picture.leader,
                picture.cost_per_hour
            )),
            pending,
        ]),
        Line::styled(picture.act.as_str(), Style::new().fg(Color::Cyan)),
    ];
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_nodes(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let rows = picture.nodes.iter().map(|node| {
        let colour = match node.state {
            "ready" => Color::Green,
            "draining" => Color::Yellow,
            "terminating" => Color::Red,
            _ => Color::Blue,
        };
        Row::new([
            Cell::from(node.name.as_str()),
            Cell::from(node.offer.as_str()),
            Cell::from(node.zone.as_str()),
            Cell::from(node.state).style(Style::new().fg(colour)),
            Cell::from(node.cpu.map(bar).unwrap_or_default()),
            Cell::from(node.pods.as_str()),
        ])
    });
    let widths = [
        Constraint::Length(19),
        Constraint::Length(20),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Length(16),
        Constraint::Min(10),
    ];
    let header = Row::new(["node", "bought as", "zone", "state", "CPU", "pods"]).dim();
    frame.render_widget(
        Table::new(rows, widths)
            .header(header)
            .block(Block::bordered().title(" nodes ")),
        area,
    );
}

/// Ten blocks and the figure.
fn bar(percent: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10")]
    let full = (percent / 10.0).round().clamp(0.0, 10.0) as usize;
    format!("{}{} {percent:>3.0}%", "█".repeat(full), "░".repeat(10 - full))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn drawn(picture: &Picture, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, picture)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        (0..height)
            .map(|y| {
                (0..width)
                    .map(|x| buffer[(x, y)].symbol().to_owned())
                    .collect::<String>()
                    + "\n"
            })
            .collect()
    }

    fn picture() -> Picture {
        Picture {
            at: Duration::from_secs(65),
            speed: 24.0,
            act: "load: the load rises".to_owned(),
            leader: "coordinator-a".to_owned(),
            nodes: vec![NodeRow {
                name: "i-0490477379a3757ba".to_owned(),
                offer: "t3.medium spot".to_owned(),
                zone: "us-east-1a".to_owned(),
                state: "draining",
                pods: "api 2  web 3".to_owned(),
                cpu: Some(47.0),
            }],
            pending: 9,
            cost_per_hour: 0.0832,
            operations: vec![(true, "launch joining: launched i-1".to_owned())],
            decisions: vec!["00:05 launch 2 nodes for 9 pending pods".to_owned()],
            now: "nothing to do".to_owned(),
            events: (0..50).map(|number| format!("event {number}")).collect(),
            footer: String::new(),
        }
    }

    #[test]
    fn a_frame_shows_nodes_operations_decisions_and_the_newest_events() {
        let text = drawn(&picture(), 110, 30);
        for part in [
            "01:05 (×24)  leader coordinator-a  $0.0832/h  9 pods pending",
            "load: the load rises",
            "i-0490477379a3757ba",
            "draining",
            "█████░░░░░  47%",
            "api 2  web 3",
            "launch joining: launched i-1",
            "00:05 launch 2 nodes",
            "event 49",
            "q or Ctrl-C ends the demo",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!text.contains("event 1 "), "{text}");
    }

    #[test]
    fn how_to_reach_a_cluster_that_goes_on_is_shown_to_its_last_word() {
        let mut picture = picture();
        picture.footer = format!(
            "Second terminal: smartscale --credentials /{} status   q ends it",
            "x".repeat(70)
        );
        for width in [60, 80, 100] {
            let text = drawn(&picture, width, 30);
            assert!(text.contains("q ends it"), "{text}");
        }
    }

    #[test]
    fn a_terminal_of_any_size_can_be_drawn_on() {
        for (width, height) in [(1, 1), (20, 5), (300, 100)] {
            drawn(&picture(), width, height);
        }
    }

    #[test]
    fn control_c_leaves_and_c_does_not() {
        assert!(leaves(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(leaves(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE)));
        assert!(!leaves(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::NONE)));
    }
}
