// Dialogs name their targets as they were when they were opened. Focus starts on what changes nothing.
import { Component, html } from './html.js';
import { Icon } from './icons.js';
import { changed, state } from './store.js';
import { S } from './strings.js';

// `dialog`: title, body, keep (what closes it), act ({ label, bad, run, ready }).
export function openDialog(dialog) {
  state.dialog = { ...dialog, from: document.activeElement };
  state.menu = null;
  changed();
}

export function closeDialog() {
  const from = state.dialog?.from;
  state.dialog = null;
  changed();
  requestAnimationFrame(() => from?.isConnected && from.focus());
}

export class Dialog extends Component {
  componentDidMount() {
    this.base.showModal();
    const first = this.base.querySelector('[autofocus], input, .keep');
    first?.focus();
  }

  render({ dialog }) {
    const run = async (event) => {
      event.preventDefault();
      if (dialog.busy) return;
      dialog.busy = true;
      dialog.error = null;
      changed();
      try {
        await dialog.act.run();
        closeDialog();
      } catch (error) {
        dialog.error = error.message;
      }
      dialog.busy = false;
      changed();
    };
    const ready = dialog.act?.ready?.() ?? true;
    return html`<dialog ref=${this.keep} class=${dialog.wide ? 'dialog wide-dialog' : 'dialog'} aria-labelledby="dialog-title"
      onCancel=${(event) => { event.preventDefault(); closeDialog(); }} onClick=${(event) => event.target === this.base && closeDialog()}>
      <form method="dialog" onSubmit=${run}>
        <h2 id="dialog-title">${dialog.title}</h2>
        ${dialog.body()}
        ${dialog.error && html`<p class="problem" role="alert"><${Icon} name="octagon" /><span>${dialog.error}</span></p>`}
        <p class="buttons">
          <button type="button" class="button keep" onClick=${closeDialog}>${dialog.keep ?? S.keep}</button>
          ${dialog.act && html`<button type="submit" class=${dialog.act.bad ? 'button bad' : 'button filled'} disabled=${!ready || dialog.busy}>${dialog.act.label}</button>`}
        </p>
      </form>
    </dialog>`;
  }
}
