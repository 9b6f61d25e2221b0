// What is asked for again and again while it is to be seen, as no event tells of it.
import { Component } from './html.js';
import { isFresh } from './mode.js';

/** `ask` gives the new state; `EACH_MS` says how often. */
export class Polled extends Component {
  componentDidMount() {
    this.load();
    this.timer = setInterval(() => this.load(), this.constructor.EACH_MS);
  }

  componentWillUnmount() {
    clearInterval(this.timer);
  }

  async load() {
    if (document.hidden || (this.wasLoaded && !isFresh())) return;
    try {
      this.setState(await this.ask(), () => this.loaded?.());
      this.wasLoaded = true;
    } catch {
      // The next one comes soon.
    }
  }
}
