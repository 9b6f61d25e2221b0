// The first run: how others see the node, before anything is asked of them, and then two ways to begin.
import { AddressForm } from './follow.js';
import { bytes, plain } from './format.js';
import { html } from './html.js';
import { Icon } from './icons.js';
import { OthersTable, isFresh } from './mode.js';
import { newChannel } from './publish.js';
import { go } from './route.js';
import { state } from './store.js';
import { S } from './strings.js';

export function FirstRun() {
  const { status } = state;
  const make = (event) => {
    event.preventDefault();
    newChannel(event.target.elements.title.value.trim());
  };
  return html`<div class="page first">
    <h1>${S.welcome}</h1>
    <p class="lead">${S.whatAChannelIs}</p>
    <section aria-labelledby="seen"><h2 id="seen">${S.howOthersSee}</h2>
      <div class="card seen">
        <details><summary><${Icon} name=${isFresh() && state.beat.mode === 'direct' ? 'eye' : 'unknown'} /><span><b>${isFresh() && state.beat.mode === 'direct' ? S.modeDirect : S.modeUnknown}.</b>${' '}
          ${isFresh() && state.beat.mode === 'direct' ? S.directNow : S.modeAsking}</span><span class="link">${S.whatOthersSee}</span></summary><${OthersTable} /></details>
      </div>
      ${status?.told_nothing && html`<p class="soft">${S.toldNothing}</p>`}
    </section>
    <section aria-labelledby="begin"><h2 id="begin">${S.followOrMake}</h2>
      <div class="two">
        <div class="card form"><h3>${S.follow}</h3><p class="soft">${S.followText}</p>
          <${AddressForm} onFound=${() => go('f')} /></div>
        <div class="card form"><h3>${S.makeOne}</h3><p class="soft">${S.makeText}</p>
          <form onSubmit=${make} autocomplete="off"><label for="title">${S.titleField}</label>
            <input id="title" name="title" type="text" placeholder=${S.titleExample} autocomplete="off" />
            <button type="submit" class="button" disabled=${!isFresh()}>${S.chooseFolder}</button></form></div>
      </div>
      ${status && html`<p class="soft">${S.filesGoTo} <code>${plain(status.home)}/downloads</code>${status.free_bytes !== null && `, ${S.free(bytes(status.free_bytes))}`}</p>`}
    </section>
  </div>`;
}
