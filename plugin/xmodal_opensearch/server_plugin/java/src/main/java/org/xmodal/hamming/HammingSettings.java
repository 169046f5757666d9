// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.util.List;
import java.util.Locale;

import org.opensearch.common.settings.Setting;
import org.opensearch.common.unit.TimeValue;
import org.opensearch.core.common.unit.ByteSizeValue;

/** The plugin's settings. All can be changed while the node runs. */
final class HammingSettings {
    /** When columns are read without a query waiting for them. */
    enum Load {
        /** Once a field was searched or warmed, its new segments are read as they appear. */
        USED,
        /** All code fields of all indices, from the start. */
        ALWAYS,
        /** Only when a query or a warm request wants them. */
        NEVER;

        static Load of(String text) {
            try {
                return valueOf(text.toUpperCase(Locale.ROOT));
            } catch (IllegalArgumentException e) {
                throw new IllegalArgumentException("hamming.load is used, always or never, not [" + text + "]", e);
            }
        }
    }

    static final Setting<ByteSizeValue> BREAKER_LIMIT = Setting.memorySizeSetting(
        "hamming.breaker.limit", "10%", Setting.Property.NodeScope, Setting.Property.Dynamic
    );
    static final Setting<Load> LOAD = new Setting<>(
        "hamming.load", "used", Load::of, Setting.Property.NodeScope, Setting.Property.Dynamic
    );
    static final Setting<TimeValue> LOAD_INTERVAL = Setting.timeSetting(
        "hamming.load.interval", TimeValue.timeValueSeconds(1), TimeValue.timeValueMillis(100), Setting.Property.NodeScope
    );

    private HammingSettings() {}

    static List<Setting<?>> all() {
        return List.of(BREAKER_LIMIT, LOAD, LOAD_INTERVAL);
    }
}
