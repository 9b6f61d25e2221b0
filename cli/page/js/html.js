// Preact and htm, bound to each other.
import { Component as Base, h, render } from '../vendor/preact.mjs';
import htm from '../vendor/htm.mjs';

export const html = htm.bind(h);
export { render };

// A component that may keep its element: `ref=${this.keep}`.
export class Component extends Base {
  constructor(props) {
    super(props);
    this.state = {};
    this.base = null;
    this.keep = (element) => {
      this.base = element;
    };
  }
}
