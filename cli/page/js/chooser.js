// A file or a folder on the node's own disk. Nothing is copied: what is chosen is published from where it lies.
import { call } from './api.js';
import { closeDialog, openDialog } from './dialog.js';
import { bytes, plain } from './format.js';
import { Component, html } from './html.js';
import { Icon } from './icons.js';
import { changed, settings } from './store.js';
import { S } from './strings.js';

const PAGE = 200;

class Chooser extends Component {
  componentDidMount() {
    this.go(settings.get('folder') ?? null);
  }

  async go(path, offset = 0) {
    try {
      const found = await call('getFolder', { path, offset, limit: PAGE });
      if (offset > 0) found.entries = [...this.state.folder.entries, ...found.entries];
      this.props.choice.path = found.path;
      this.setState({ folder: found, error: null });
      changed();
    } catch (error) {
      if (path !== null && !this.state.folder) this.go(null);
      else this.setState({ error: plain(error.message) });
    }
  }

  render({ choice, isFolder }, { folder, error }) {
    const join = (name) => `${folder.path === '/' ? '' : folder.path}/${name}`;
    return html`<div class="chooser">
      ${error && html`<p class="problem" role="alert"><${Icon} name="octagon" /><span>${error}</span></p>`}
      ${!folder ? html`<p class="soft">${S.asking}</p>` : html`
        <p class="path"><code>${plain(folder.path)}</code></p>
        <ul class="card list entries">
          ${folder.parent && html`<li><button type="button" onClick=${() => this.go(folder.parent)}><${Icon} name="back" />${S.folderAbove}</button></li>`}
          ${folder.entries.filter((entry) => entry.folder || !isFolder).map((entry) => html`<li key=${entry.name}>
            ${entry.folder ? html`<button type="button" onClick=${() => this.go(join(entry.name))}><${Icon} name="folder" /><bdi>${plain(entry.name)}</bdi></button>`
              : html`<button type="button" onClick=${() => choice.take(join(entry.name))}><${Icon} name="file" /><bdi>${plain(entry.name)}</bdi><span class="soft figure">${bytes(entry.size_bytes)}</span></button>`}</li>`)}
          ${folder.entries.length < folder.total && html`<li><button type="button" onClick=${() => this.go(folder.path, folder.entries.length)}>${S.moreFiles(folder.total - folder.entries.length)}</button></li>`}
          ${folder.total === 0 && html`<li class="soft pad">${S.emptyFolder}</li>`}
        </ul>`}
    </div>`;
  }
}

// Lets a file or a folder be chosen, and hands its path on. `isFolder`: a folder only.
export function choose(take, { title = S.chooseOnNode, text = S.chooseText, isFolder = false } = {}) {
  const choice = {
    path: null,
    take(path) {
      settings.set('folder', choice.path);
      closeDialog();
      take(path);
    },
  };
  openDialog({
    title, wide: true, keep: S.close,
    body: () => html`<p class="soft">${text}</p><${Chooser} choice=${choice} isFolder=${isFolder} />`,
    act: { label: S.chooseThisFolder, ready: () => choice.path !== null, run: async () => { settings.set('folder', choice.path); take(choice.path); } },
  });
}
