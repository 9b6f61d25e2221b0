// The files of a channel, or of what is to be published, as a tree: a folder is loaded when it is opened.
import { call } from './api.js';
import { copy, say } from './actions.js';
import { bytes, plain } from './format.js';
import { Component, html } from './html.js';
import { Icon } from './icons.js';
import { openMenu } from './menu.js';
import { isFresh } from './mode.js';
import { S } from './strings.js';
import { onEvents } from './sync.js';
import { reveal, Virtual } from './virtual.js';

const PAGE = 500;
const RELOAD_MS = 1000;
const CHANGES = new Set(['file', 'complete', 'manifest', 'withdrawn', 'changed']);

// Folders that are open, by channel, for as long as the page lives.
const opened = new Map();

const phone = matchMedia('(max-width: 719px)');

async function show(channel, file) {
  try {
    const link = await call('createFileLink', { channel, path: file.path });
    window.open(link.path, '_blank', 'noopener');
  } catch (error) {
    say(error.message);
  }
}

export class Files extends Component {
  constructor(props) {
    super(props);
    this.folders = new Map();
    if (!opened.has(props.channel)) opened.set(props.channel, new Set());
    this.open = opened.get(props.channel);
    this.focus = 0;
  }

  componentDidMount() {
    this.load('');
    for (const folder of this.open) this.load(folder);
    this.unhear = onEvents((name, data) => {
      if (data.channel !== this.props.channel || !CHANGES.has(name) || this.due) return;
      this.due = setTimeout(() => {
        this.due = 0;
        this.reload();
      }, RELOAD_MS);
    });
  }

  componentWillUnmount() {
    this.unhear();
    clearTimeout(this.due);
  }

  reload() {
    for (const [folder, known] of this.folders) this.load(folder, 0, known.files.length);
  }

  async load(under, offset = 0, limit = PAGE) {
    try {
      const found = await call('getFiles', { channel: this.props.channel, under, offset, limit: Math.max(limit, PAGE) });
      const before = offset > 0 ? this.folders.get(under).files : [];
      this.folders.set(under, { files: [...before, ...found.files], total: found.total });
      if (under === '') this.props.onLoaded?.(found);
      this.setState({});
    } catch (error) {
      this.setState({ error: error.message });
    }
  }

  // All rows that are to be seen, in order.
  rows() {
    const rows = [];
    const add = (under, depth) => {
      const known = this.folders.get(under);
      if (!known) return;
      // Folders first.
      const files = [...known.files.filter((file) => file.folder), ...known.files.filter((file) => !file.folder)];
      files.forEach((file, index) => {
        rows.push({ file, depth, at: index + 1, of: known.total });
        if (file.folder && this.open.has(file.path)) add(file.path, depth + 1);
      });
      if (known.files.length < known.total) rows.push({ more: under, depth, rest: known.total - known.files.length, from: known.files.length });
    };
    add('', 0);
    return rows;
  }

  toggle(file, to = !this.open.has(file.path)) {
    if (to) {
      this.open.add(file.path);
      this.load(file.path);
    } else {
      this.open.delete(file.path);
    }
    this.setState({});
  }

  act(row) {
    if (row.more !== undefined) this.load(row.more, row.from);
    else if (row.file.folder) this.toggle(row.file);
    else if (row.file.target) show(this.props.channel, row.file);
  }

  go(to) {
    this.focus = Math.max(0, Math.min(this.rows().length - 1, to));
    this.setState({}, () => {
      const row = this.base.querySelector(`[data-row="${this.focus}"]`);
      row?.focus({ preventScroll: true });
      reveal(row);
    });
  }

  key(event) {
    const rows = this.rows();
    const row = rows[this.focus];
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const parent = () => rows.findLastIndex((it, index) => index < this.focus && it.depth < row.depth);
    const isFolder = row.file?.folder;
    const isOpen = isFolder && this.open.has(row.file.path);
    switch (event.key) {
      case 'ArrowDown': case 'j': this.go(this.focus + 1); break;
      case 'ArrowUp': case 'k': this.go(this.focus - 1); break;
      case 'Home': this.go(0); break;
      case 'End': this.go(rows.length - 1); break;
      case 'ArrowRight':
        if (isOpen) this.go(this.focus + 1);
        else if (isFolder) this.toggle(row.file, true);
        break;
      case 'ArrowLeft':
        if (isOpen) this.toggle(row.file, false);
        else if (parent() >= 0) this.go(parent());
        break;
      case 'Enter': this.act(row); break;
      default: return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  items(file) {
    return [
      { label: S.open, off: !isFresh(), run: () => show(this.props.channel, file) },
      { label: S.copyPath, run: () => copy(file.target) },
    ];
  }

  state_(file) {
    if (file.folder) {
      if (file.files_here === file.files) return html`<${Icon} name="check" /><span>${S.fileHere}</span>`;
      return html`<span>${S.someHere(file.files_here, file.files)}</span>`;
    }
    if (file.state === 'here') return html`<${Icon} name="check" /><span>${S.fileHere}</span>`;
    if (file.state === 'kept') return html`<span class="warn mark"><${Icon} name="triangle" /></span><span>${S.fileKept}</span>`;
    if (file.state === 'failed') return html`<span class="bad mark"><${Icon} name="octagon" /></span><span>${S.fileFailed}</span>`;
    return html`<span>${this.props.preview ? S.fileNotFetched : S.fileWaiting}</span>`;
  }

  row(row, index, style) {
    const focus = index === this.focus ? 0 : -1;
    const indent = { '--depth': row.depth };
    if (row.more !== undefined) {
      return html`<div key=${`more ${row.more}`} role="treeitem" class="file" style=${{ ...style, ...indent }} aria-level=${row.depth + 1} tabindex=${focus} data-row=${index}
        onFocus=${() => { this.focus = index; }} onClick=${() => this.act(row)}><span class="f-name"><span class="link">${S.moreFiles(row.rest)}</span></span></div>`;
    }
    const { file } = row;
    const name = plain(file.path.slice(file.path.lastIndexOf('/') + 1));
    const isOpen = file.folder ? this.open.has(file.path) : undefined;
    const tag = file.change && html`<span class="tag">${file.change === 'new' ? S.tagNew : S.tagChanged}</span>`;
    return html`<div key=${file.path} role="treeitem" class=${`file ${file.folder ? 'is-folder' : ''} ${file.state}`} style=${{ ...style, ...indent }} aria-level=${row.depth + 1}
      aria-expanded=${isOpen} aria-setsize=${row.of} aria-posinset=${row.at} aria-selected="false" tabindex=${focus} data-row=${index}
      onFocus=${() => { this.focus = index; }} onClick=${() => file.folder && this.toggle(file)}
      onContextMenu=${(event) => file.target && openMenu(event, this.items(file), name)}>
      <span class="f-turn">${file.folder && html`<${Icon} name=${isOpen ? 'open' : 'right'} />`}</span>
      <span class="f-name"><span class="f-text"><bdi>${name}</bdi></span>${tag}</span>
      <span class="f-size figure">${bytes(file.size_bytes)}</span>
      <span class="f-state">${this.state_(file)}</span>
      <span class="f-more">${file.target && html`<button type="button" class="more" tabindex="-1" aria-haspopup="menu" aria-label=${S.moreOf(name)}
        onClick=${(event) => openMenu(event, this.items(file), name)}><${Icon} name="more" /></button>`}</span>
    </div>`;
  }

  render({ label, foot }, { error }) {
    const rows = this.rows();
    const top = this.folders.get('');
    this.focus = Math.min(this.focus, Math.max(0, rows.length - 1));
    const height = phone.matches ? 52 : 36;
    return html`<div class="card files" ref=${this.keep}>
      <div class="f-head"><span>${top ? label : S.asking}</span><span class="f-size">${S.size}</span><span class="f-state">${S.columnState}</span></div>
      ${error && html`<p class="problem" role="alert"><${Icon} name="octagon" /><span>${error}</span></p>`}
      ${top && rows.length === 0 && html`<p class="empty">${S.noFilesYet}</p>`}
      ${rows.length > 0 && html`<div role="tree" aria-label=${S.filesLabel} onKeyDown=${(event) => this.key(event)}>
        <${Virtual} role="none" count=${rows.length} height=${height} focus=${this.focus} row=${(index, style) => this.row(rows[index], index, style)} /></div>`}
      ${foot}
    </div>`;
  }
}
