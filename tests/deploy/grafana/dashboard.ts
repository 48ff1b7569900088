// What a dashboard with the panels of ours may have, by Grafana's own types. dashboard.schema.json is made of it:
//
//   npm install typescript@5 ts-json-schema-generator@2 @grafana/schema@13.2.3
//   npx ts-json-schema-generator --path dashboard.ts --type Ours --no-type-check --expose none --jsDoc none --minify
//
// Grafana fills in options that are not there, so all may be absent; the types of queries are not in its package.

import type {Dashboard, DataSourceRef, FieldConfig, FieldConfigSource, Panel, RowPanel} from "@grafana/schema";
import type {Options as Stat} from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type {
  FieldConfig as Line,
  Options as TimeSeries,
} from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

type One<Type extends string, Options, Custom> = Omit<Panel, "type" | "options" | "fieldConfig" | "targets"> & {
  type: Type;
  options?: Partial<Options>;
  fieldConfig: {
    defaults: Omit<FieldConfig, "custom"> & {custom?: Partial<Custom>};
    overrides: FieldConfigSource["overrides"];
  };
  targets: {refId: string; expr: string; legendFormat: string; datasource?: DataSourceRef}[];
};

export type Ours = Omit<Dashboard, "panels"> & {
  panels: (RowPanel | One<"stat", Stat, {}> | One<"timeseries", TimeSeries, Line>)[];
};
