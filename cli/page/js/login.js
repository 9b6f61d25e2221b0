// Nobody is logged in: how to get a link, and a field for who has a token.
import { logIn } from './api.js';
import { Component, html } from './html.js';
import { Icon, Logo } from './icons.js';
import { changed, state } from './store.js';
import { S } from './strings.js';
import { begin } from './sync.js';

export class Login extends Component {
  render(_, { error, busy }) {
    const submit = async (event) => {
      event.preventDefault();
      const field = event.target.elements.token;
      this.setState({ busy: true, error: null });
      let isGood = false;
      let problem = S.wrongToken;
      try {
        isGood = await logIn(field.value.trim());
      } catch {
        problem = S.errors.gone;
      }
      field.value = '';
      this.setState({ busy: false, error: isGood ? null : problem });
      if (isGood) {
        state.login = null;
        changed();
        begin();
      } else {
        field.focus();
      }
    };
    return html`<main class="login" id="main" tabindex="-1">
      <div class="card form">
        <p class="brand"><${Logo} /> <b>${S.name}</b></p>
        <h1>${S.loginTitle}</h1>
        <p>${S.loginLead}</p>
        <p><code class="command">megatorrent token link</code></p>
        <p class="soft">${S.loginServe}</p>
        <form onSubmit=${submit} autocomplete="off">
          <label for="token">${S.orToken}</label>
          <input id="token" name="token" type="password" placeholder="mt_" autocomplete="off" spellcheck="false" autocapitalize="off"
            aria-invalid=${Boolean(error)} aria-describedby="token-help" required />
          <p class="soft" id="token-help">${S.tokenHelp}</p>
          ${error && html`<p class="problem" role="alert"><${Icon} name="octagon" /><span>${error}</span></p>`}
          <button type="submit" class="button filled" disabled=${busy}>${S.logIn}</button>
        </form>
      </div>
    </main>`;
  }
}
