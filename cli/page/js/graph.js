// Rates over time. The library comes when the first graph is drawn.
import { call } from './api.js';
import { clock, rateText } from './format.js';
import { Component, html } from './html.js';
import { isFresh } from './mode.js';
import { state } from './store.js';
import { S } from './strings.js';

const MIB = 1048576;
const SHORT_MS = 600000;
const DAY_MS = 86400000;

let loading = null;

function library() {
  loading ??= new Promise((resolve, reject) => {
    const style = document.createElement('link');
    style.rel = 'stylesheet';
    style.href = 'vendor/uPlot.min.css';
    const script = document.createElement('script');
    script.src = 'vendor/uPlot.iife.min.js';
    script.onload = () => resolve(window.uPlot);
    script.onerror = reject;
    document.head.append(style, script);
  });
  return loading;
}

const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// The next step of 1, 2, 5 above a number, for the top line.
function ceiling(number) {
  const least = Math.max(number, 16 * 1024);
  const unit = least < MIB ? 1024 : MIB * (least < MIB * 1000 ? 1 : 1024);
  const scaled = least / unit;
  const power = 10 ** Math.floor(Math.log10(scaled));
  const step = [1, 1.5, 2, 3, 5, 8, 10].find((it) => it * power >= scaled);
  return step * power * unit;
}

// Samples as columns; where the node was off there is a gap.
function columns(history) {
  const columns = [[], [], []];
  let last = 0;
  for (const sample of history.samples) {
    const at = sample.unix_ms / 1000;
    if (last && at - last > history.step_secs * 3) {
      columns[0].push(last + history.step_secs);
      columns[1].push(null);
      columns[2].push(null);
    }
    columns[0].push(at);
    columns[1].push(sample.receive_bytes_per_sec);
    columns[2].push(sample.send_bytes_per_sec);
    last = at;
  }
  return columns;
}

export class RateGraph extends Component {
  componentDidMount() {
    this.timer = setInterval(() => this.load(), this.props.day ? 60000 : 2000);
    this.load();
    this.themed = () => this.build();
    this.scheme = matchMedia('(prefers-color-scheme: dark)');
    this.scheme.addEventListener('change', this.themed);
    addEventListener('theme', this.themed);
    this.sizes = new ResizeObserver(() => this.plot && this.base && this.plot.setSize(this.size()));
    this.sizes.observe(this.base);
  }

  componentDidUpdate(before) {
    if (before.day === this.props.day) return;
    clearInterval(this.timer);
    this.history = null;
    this.timer = setInterval(() => this.load(), this.props.day ? 60000 : 2000);
    this.load();
  }

  componentWillUnmount() {
    clearInterval(this.timer);
    this.scheme.removeEventListener('change', this.themed);
    removeEventListener('theme', this.themed);
    this.sizes.disconnect();
    this.plot?.destroy();
  }

  size() {
    return { width: this.base.querySelector('.plot').clientWidth, height: this.props.small ? 46 : 220 };
  }

  async load() {
    if (document.hidden || state.login !== 'in' || (this.history && !isFresh())) return;
    try {
      this.history = await call('getRates', { day: Boolean(this.props.day) });
      if (!this.base) return;
      await this.show();
    } catch {
      // The next one comes soon.
    }
  }

  async show() {
    const data = columns(this.history);
    const most = Math.max(...data[1], ...data[2], 0);
    const limit = this.props.limit ?? 0;
    this.top = ceiling(Math.max(most, limit * 1.1));
    if (!this.plot) await this.build();
    else this.plot.setData(data);
    if (this.state.top !== this.top) this.setState({ top: this.top });
  }

  async build() {
    if (!this.history) return;
    const Plot = await library();
    if (!this.base) return;
    this.plot?.destroy();
    const { small, day } = this.props;
    const [accent, soft, line] = ['accent', 'soft', 'line'].map(token);
    const font = '12px system-ui, sans-serif';
    const lines = (plot) => {
      const { ctx, bbox } = plot;
      ctx.save();
      ctx.strokeStyle = line;
      ctx.lineWidth = devicePixelRatio;
      for (const share of [0, 0.5, 1]) {
        const y = Math.round(bbox.top + bbox.height * share) + 0.5;
        ctx.beginPath();
        ctx.moveTo(bbox.left, y);
        ctx.lineTo(bbox.left + bbox.width, y);
        ctx.stroke();
      }
      const limit = this.props.limit;
      if (limit) {
        const y = plot.valToPos(limit, 'y', true);
        ctx.strokeStyle = soft;
        ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
        ctx.beginPath();
        ctx.moveTo(bbox.left, y);
        ctx.lineTo(bbox.left + bbox.width, y);
        ctx.stroke();
      }
      ctx.restore();
    };
    this.plot = new Plot({
      ...this.size(),
      cursor: { show: false }, legend: { show: false },
      padding: small ? [1, 0, 1, 0] : [4, 0, 0, 0],
      scales: {
        x: { time: true, range: () => [(Date.now() - (day ? DAY_MS : SHORT_MS)) / 1000, Date.now() / 1000] },
        y: { range: () => [0, this.top] },
      },
      axes: [
        { show: !small, stroke: soft, font, grid: { show: false }, ticks: { show: false }, size: 26, space: 70, incrs: [60, 120, 300, 600, 3600, 7200, 10800, 21600], values: (_, at) => at.map((it) => clock(it * 1000)) },
        { show: false },
      ],
      series: [
        {},
        { stroke: accent, width: 1.6, fill: `${accent}1a`, points: { show: false }, spanGaps: false },
        { stroke: soft, width: 1.2, dash: [4, 3], points: { show: false }, spanGaps: false },
      ],
      hooks: { drawClear: [lines] },
    }, columns(this.history), this.base.querySelector('.plot'));
  }

  render({ small, day }, { top }) {
    const samples = this.history?.samples ?? [];
    const last = samples[samples.length - 1];
    const label = last ? S.graphLabel(day ? S.lastDay : S.lastTenMinutes, rateText(last.receive_bytes_per_sec), rateText(last.send_bytes_per_sec)) : S.graphEmpty;
    return html`<figure ref=${this.keep} class=${small ? 'graph small' : 'graph'}>
      <figcaption><span class="key down">${S.down}</span><span class="key up">${S.up}</span><span class="over">${day ? S.lastDay : S.lastTenMinutes}</span>
        <span class="max figure">${top ? rateText(top) : ''}</span></figcaption>
      <div class="plot" role="img" aria-label=${label} />
    </figure>`;
  }
}
