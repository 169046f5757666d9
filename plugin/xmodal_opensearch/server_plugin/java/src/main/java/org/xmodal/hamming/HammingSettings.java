// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.util.List;
import java.util.Locale;

import org.opensearch.common.settings.Setting;
import org.opensearch.common.unit.TimeValue;
import org.opensearch.core.common.unit.ByteSizeValue;

/** Settings of the plugin. The interval is static; the others are dynamic. */
final class HammingSettings {
    /** Which codes are loaded into the cache before a query searches them. */
    enum LoadPolicy {
        /** New segments of fields that were searched or warmed up recently. */
        USED,
        /** All code fields of all indices. */
        ALWAYS,
        /** None: codes are loaded by queries and warmup requests only. */
        NEVER;

        static LoadPolicy of(String text) {
            try {
                return valueOf(text.toUpperCase(Locale.ROOT));
            } catch (IllegalArgumentException e) {
                throw new IllegalArgumentException("hamming.load is [" + text + "], expected used, always or never", e);
            }
        }
    }

    static final Setting<ByteSizeValue> BREAKER_LIMIT = Setting.memorySizeSetting(
        "hamming.breaker.limit", "10%", Setting.Property.NodeScope, Setting.Property.Dynamic
    );
    static final Setting<LoadPolicy> LOAD = new Setting<>(
        "hamming.load", "used", LoadPolicy::of, Setting.Property.NodeScope, Setting.Property.Dynamic
    );
    static final Setting<TimeValue> LOAD_INTERVAL = Setting.timeSetting(
        "hamming.load.interval", TimeValue.timeValueSeconds(1), TimeValue.timeValueMillis(100), Setting.Property.NodeScope
    );

    private HammingSettings() {}

    static List<Setting<?>> all() {
        return List.of(BREAKER_LIMIT, LOAD, LOAD_INTERVAL);
    }
}
