// @ts-check
/** Steps back and forth of any value; the newest one is `now`. */

const MOST = 200;

/** @template T */
export class History {
  /** @param {T} first */
  constructor(first) {
    this.now = first;
    /** @type {T[]} */
    this.past = [];
    /** @type {T[]} */
    this.future = [];
  }

  /** @param {T} next */
  add(next) {
    this.past.push(this.now);
    if (this.past.length > MOST) this.past.shift();
    this.future = [];
    this.now = next;
  }

  /** Forgets the newest steps, as if they had not been taken. @param {number} steps */
  drop(steps) {
    if (!steps || this.past.length < steps) return;
    this.now = this.past[this.past.length - steps];
    this.past.length -= steps;
  }

  /** What `now` is after a step back; nothing where there is none. */
  undo() {
    const before = this.past.pop();
    if (before === undefined) return undefined;
    this.future.push(this.now);
    return (this.now = before);
  }

  redo() {
    const next = this.future.pop();
    if (next === undefined) return undefined;
    this.past.push(this.now);
    return (this.now = next);
  }

  /** A value from outside: there is no way back from it. @param {T} value */
  reset(value) {
    this.now = value;
    this.past = [];
    this.future = [];
  }
}
