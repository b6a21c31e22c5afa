// A titled part of the page.
import type { ComponentChildren } from "preact";

export function Section({ id, title, about, children }: { id: string; title: string; about?: ComponentChildren; children: ComponentChildren }) {
  return (
    <section id={id} aria-labelledby={`${id}-title`}>
      <h2 id={`${id}-title`}>{title}</h2>
      {about && <p class="about">{about}</p>}
      {children}
    </section>
  );
}
