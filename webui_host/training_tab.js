// @ts-check
/** The training monitor in a web UI's tab: looks at the run while it goes on. */

import { mountMonitor } from "../web/train_monitor.js";

const LOOK = 1000; // milliseconds between looks

/**
 * @param {HTMLElement} container
 * @param {{ask: (route: string, method?: string) => Promise<any>, address: (route: string) => string}} host
 */
export function mountTraining(container, host) {
  const monitor = mountMonitor(container, {
    keep: async () => {
      const { stopping, detail } = await host.ask("train/keep", "POST");
      if (!stopping) throw new Error(detail);
    },
    previewUrl: (number) => host.address(`train/preview?number=${number}`),
    resized: () => {},
    toggleFields: () => {},
  });
  monitor.setSwitch(false, false);
  let shown = "";
  const look = async () => {
    const job = container.offsetParent ? await host.ask("train").catch(() => null) : null;
    const now = JSON.stringify(job);
    if (job && now !== shown) monitor.restore(job);
    if (job) shown = now;
  };
  const timer = setInterval(look, LOOK);
  return { destroy: () => (clearInterval(timer), monitor.destroy()) };
}
